/**
 * Which sink events are published to, which source they are read from, and what a node may apply.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as FileArtifactStore from "../file/FileArtifactStore.js"
import * as FileSettings from "../file/FileSettings.js"
import type * as FileSink from "../file/FileSink.js"
import type * as FileSource from "../file/FileSource.js"
import { quote } from "../internal/printable.js"
import * as JetStreamSettings from "../jetstream/JetStreamSettings.js"
import type * as JetStreamSink from "../jetstream/JetStreamSink.js"
import type * as JetStreamSource from "../jetstream/JetStreamSource.js"
import * as Setting from "../Setting.js"

/**
 * The chosen sink with its options.
 *
 * @since 0.1.0
 * @category models
 */
export type SinkConfig =
  | { readonly _tag: "nop" }
  | ({ readonly _tag: "file" } & FileSink.Options)
  | ({ readonly _tag: "jetstream" } & JetStreamSink.Options)

/**
 * The chosen source with its options.
 *
 * @since 0.1.0
 * @category models
 */
export type SourceConfig =
  | { readonly _tag: "nop" }
  | ({ readonly _tag: "file" } & FileSource.Options)
  | ({ readonly _tag: "jetstream" } & JetStreamSource.Options)

/**
 * What `apply` may do.
 *
 * @since 0.1.0
 * @category models
 */
export interface Apply {
  readonly artifacts: FileArtifactStore.Options
  /** The tables that artifacts may change, as `schema.table`. */
  readonly tables: ReadonlySet<string>
  readonly cannotApply: "halt" | "setAside"
}

const feeds = ["nop", "file", "jetstream"] as const

const parseFeed: Setting.Parse<(typeof feeds)[number]> = (text) =>
  Either.fromNullable(
    feeds.find((feed) => feed === text),
    () => `got ${quote(text)}, valid is nop, file or jetstream`
  )

const nop = "nop" as const

const sinkName = Setting.make({
  env: "FEED_SINK",
  flag: "sink",
  description: "Where events are published to: nop (nowhere), file or jetstream",
  default: nop,
  parse: parseFeed
})

const sourceName = Setting.make({
  env: "FEED_SOURCE",
  flag: "source",
  description: "Where events are read from: nop (nowhere), file or jetstream",
  default: nop,
  parse: parseFeed
})

const tables = Setting.make({
  env: "APPLY_TABLES",
  flag: "tables",
  description: "The tables that artifacts may change, as schema.table, separated by commas",
  default: new Set<string>(),
  defaultText: "none",
  parse: (text) => {
    const tables = text.split(",").map((table) => table.trim())
    const wrong = tables.find((table) => !/^[^.\s]+\.[^.\s]+$/.test(table))
    return wrong === undefined
      ? Either.right(new Set(tables))
      : Either.left(`got ${quote(wrong)}, valid is schema.table, separated by commas`)
  }
})

const parseCannotApply: Setting.Parse<Apply["cannotApply"]> = (text) =>
  text === "halt" || text === "set-aside"
    ? Either.right(text === "halt" ? text : "setAside")
    : Either.left(`got ${quote(text)}, valid is halt or set-aside`)

const cannotApply = Setting.make({
  env: "APPLY_CANNOT_APPLY",
  flag: "cannot-apply",
  description: "How to handle an event that can never be applied: halt (later events wait) or set-aside",
  default: "halt" as const,
  parse: parseCannotApply
})

/**
 * The setting that chooses the sink.
 *
 * @since 0.1.0
 * @category declarations
 */
export const sinkGroup: Setting.Group = { title: "Sink", settings: [sinkName] }

/**
 * The setting that chooses the source.
 *
 * @since 0.1.0
 * @category declarations
 */
export const sourceGroup: Setting.Group = { title: "Source", settings: [sourceName] }

/**
 * The settings of `apply` that neither the source nor the database declares.
 *
 * @since 0.1.0
 * @category declarations
 */
export const nodeGroup: Setting.Group = { title: "Node", settings: [tables, cannotApply] }

/**
 * The settings of `serve`.
 *
 * @since 0.1.0
 * @category declarations
 */
export const sinkGroups: ReadonlyArray<Setting.Group> = [
  sinkGroup,
  FileSettings.sinkGroup,
  JetStreamSettings.feedGroup,
  JetStreamSettings.sinkGroup
]

/**
 * The settings that `tail` and `apply` share.
 *
 * @since 0.1.0
 * @category declarations
 */
export const sourceGroups: ReadonlyArray<Setting.Group> = [
  sourceGroup,
  FileSettings.sourceGroup,
  JetStreamSettings.feedGroup
]

/**
 * The settings of `apply`.
 *
 * @since 0.1.0
 * @category declarations
 */
export const applyGroups: ReadonlyArray<Setting.Group> = [nodeGroup, FileSettings.artifactGroup]

/**
 * Reads the sink and its settings. The settings of other sinks are ignored.
 *
 * @since 0.1.0
 * @category reading
 */
export const sink: Effect.Effect<SinkConfig, Setting.InvalidSetting> = Effect.gen(function* () {
  const _tag = yield* Setting.read(sinkName)
  switch (_tag) {
    case "nop":
      return { _tag }
    case "file":
      return { _tag, ...(yield* FileSettings.sink) }
    case "jetstream":
      return { _tag, ...(yield* JetStreamSettings.sink) }
  }
})

/**
 * Reads the source and its settings. The settings of other sources are ignored.
 *
 * @since 0.1.0
 * @category reading
 */
export const source: Effect.Effect<SourceConfig, Setting.InvalidSetting> = Effect.gen(function* () {
  const _tag = yield* Setting.read(sourceName)
  switch (_tag) {
    case "nop":
      return { _tag }
    case "file":
      return { _tag, ...(yield* FileSettings.source) }
    case "jetstream":
      return { _tag, ...(yield* JetStreamSettings.source) }
  }
})

/**
 * Reads what a node may apply.
 *
 * @since 0.1.0
 * @category reading
 */
export const apply: Effect.Effect<Apply, Setting.InvalidSetting> = Effect.all({
  artifacts: FileSettings.artifacts,
  tables: Setting.read(tables),
  cannotApply: Setting.read(cannotApply)
})
