/** The feed that the commands read. */
import type * as Layer from "effect/Layer"
import * as Path from "node:path"
import * as FileSource from "../../file/FileSource.js"
import * as JetStreamSource from "../../jetstream/JetStreamSource.js"
import { layerNop, type Source } from "../../fleet/Source.js"
import type { SourceConfig } from "../FeedSettings.js"

export const layer = (source: SourceConfig): Layer.Layer<Source> => {
  switch (source._tag) {
    case "nop":
      return layerNop
    case "file":
      return FileSource.layer(source)
    case "jetstream":
      return JetStreamSource.layer(source)
  }
}

/** A description for people, without secrets. */
export const describe = (source: SourceConfig): string => {
  switch (source._tag) {
    case "nop":
      return "nowhere"
    case "file":
      return Path.resolve(source.directory)
    case "jetstream":
      return `the stream ${source.stream} at ${source.servers.join(", ")}`
  }
}
