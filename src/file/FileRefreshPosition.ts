/**
 * The position of a node in refresh mode, in a file.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Path from "node:path"
import { AppliedEventsError } from "../fleet/AppliedEvents.js"
import { RefreshPosition } from "../fleet/Refresh.js"
import { layerConfig as makeLayerConfig, type LayerConfig } from "../internal/layerConfig.js"
import * as Files from "./internal/files.js"

/**
 * Where the position is.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The file, one for each node. Its directory is created if it is missing. */
  readonly file: string
}

const maxBytes = 64 * 1024

const decode = Schema.decodeUnknownOption(
  Schema.parseJson(Schema.Struct({ feed: Schema.String, position: Schema.NonNegativeInt }))
)

/**
 * Keeps the position in a file. A crash leaves the old position or the new one, on the disk. A file that holds no
 * position is logged and counts as missing: the node refreshes everything.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = ({ file }: Options): RefreshPosition["Type"] => {
  const [directory, name] = [Path.dirname(Path.resolve(file)), Path.basename(file)]
  const path = Path.join(directory, name)
  const failed = (doing: string) => (cause: Files.FileError) =>
    new AppliedEventsError({
      message: `Could not ${doing} the position ${path}: ${cause.message}`,
      retryable: true,
      cause
    })
  return {
    read: Effect.gen(function* () {
      const text = yield* Effect.mapError(Files.ifPresent(Files.read(path, maxBytes)), failed("read"))
      if (text === undefined) return undefined
      const cursor = Option.getOrUndefined(decode(text))
      if (cursor === undefined) yield* Effect.logWarning(`${path} holds no position: everything is refreshed`)
      return cursor
    }),
    write: ({ feed, position }) =>
      Effect.mapError(
        Effect.zipRight(
          Files.makeDirectory(directory, 0o700),
          Files.replace(directory, name, JSON.stringify({ feed, position }), 0o600)
        ),
        failed("write")
      )
  }
}

/**
 * Provides the position in a file.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: Options): Layer.Layer<RefreshPosition> =>
  Layer.sync(RefreshPosition, () => make(options))

/**
 * Provides the same as {@link layer}, its options read from `Config`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig: LayerConfig<Options, RefreshPosition, never, never> = makeLayerConfig(layer)
