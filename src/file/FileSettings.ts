/**
 * The settings of files: the sink's feed, the source's feed, and artifacts.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import { stat } from "node:fs/promises"
import { codeOf } from "../internal/errorCode.js"
import { quote } from "../internal/printable.js"
import * as Setting from "../Setting.js"
import * as FileArtifactStore from "./FileArtifactStore.js"
import type * as FileSink from "./FileSink.js"
import type * as FileSource from "./FileSource.js"

const sinkDirectory = Setting.make({
  env: "FEED_SINK_FILE_DIR",
  flag: "sink-file-dir",
  description: "The directory in which the file sink keeps the feed, one process at a time",
  default: "feed",
  parse: Setting.text
})

const sinkAccess = Setting.make({
  env: "FEED_SINK_FILE_ACCESS",
  flag: "sink-file-access",
  description: "Who may read the feed that the file sink keeps: owner, group or all",
  default: "owner" as const,
  parse: Setting.oneOf("owner", "group", "all")
})

const sourceDirectory = Setting.make({
  env: "FEED_SOURCE_FILE_DIR",
  flag: "source-file-dir",
  description: "The directory in which the file source finds the feed",
  default: "feed",
  parse: Setting.text
})

const artifactDirectory = Setting.make({
  env: "ARTIFACT_DIR",
  flag: "artifact-dir",
  description: "The directory that holds the artifacts to which events refer",
  default: "artifacts",
  parse: Setting.text
})

const artifactMaxBytes = Setting.make({
  env: "ARTIFACT_MAX_BYTES",
  flag: "artifact-max-bytes",
  description: "The largest artifact in bytes; one at a time is read into memory as a whole",
  default: FileArtifactStore.defaultMaxBytes,
  parse: Setting.integer({ min: 1, max: 2_147_483_647 })
})

/**
 * The settings of the file sink.
 *
 * @since 0.1.0
 * @category declarations
 */
export const sinkGroup: Setting.Group = { title: "File sink", settings: [sinkDirectory, sinkAccess] }

/**
 * The settings of the file source.
 *
 * @since 0.1.0
 * @category declarations
 */
export const sourceGroup: Setting.Group = { title: "File source", settings: [sourceDirectory] }

/**
 * The settings of the artifacts.
 *
 * @since 0.1.0
 * @category declarations
 */
export const artifactGroup: Setting.Group = { title: "Artifacts", settings: [artifactDirectory, artifactMaxBytes] }

/** Why a path cannot be a directory. Absent if nothing is there: it may come. */
const refusalOf = (path: string): Promise<string | undefined> =>
  stat(path).then(
    (info) => (info.isDirectory() ? undefined : `${quote(path)} is not a directory`),
    (error: unknown) => {
      const code = codeOf(error)
      if (code === "ENOENT") return undefined
      return `cannot use ${quote(path)}: ${code === "ENOTDIR" ? "a part of the path is not a directory" : String(code)}`
    }
  )

const readDirectory = (setting: Setting.Setting<string, string>): Effect.Effect<string, Setting.InvalidSetting> =>
  Effect.tap(Setting.read(setting), (path) =>
    Effect.flatMap(
      Effect.promise(() => refusalOf(path)),
      (refusal) => (refusal === undefined ? Effect.void : Effect.fail(Setting.invalid(setting, refusal)))
    )
  )

/**
 * Turns an error about the file sink's directory into one that names its setting.
 *
 * @since 0.1.0
 * @category errors
 */
export const unusable = (message: string): Setting.InvalidSetting => Setting.invalid(sinkDirectory, message)

/**
 * Reads the settings of the file sink.
 *
 * @since 0.1.0
 * @category reading
 */
export const sink: Effect.Effect<FileSink.Options, Setting.InvalidSetting> = Effect.all({
  directory: readDirectory(sinkDirectory),
  access: Setting.read(sinkAccess)
})

/**
 * Reads the settings of the file source.
 *
 * @since 0.1.0
 * @category reading
 */
export const source: Effect.Effect<FileSource.Options, Setting.InvalidSetting> = Effect.all({
  directory: readDirectory(sourceDirectory)
})

/**
 * Reads the settings of the artifacts.
 *
 * @since 0.1.0
 * @category reading
 */
export const artifacts: Effect.Effect<FileArtifactStore.Options, Setting.InvalidSetting> = Effect.all({
  directory: readDirectory(artifactDirectory),
  maxBytes: Setting.read(artifactMaxBytes)
})
