/**
 * The settings of what is kept in files: the feed of the sink, the feed of the source, and artifacts.
 *
 * @since 1.0.0
 */
import type * as Effect from "effect/Effect"
import * as Setting from "../Setting.js"

const sinkDirectory = Setting.make({
  env: "FEED_SINK_FILE_DIR",
  flag: "sink-file-dir",
  description: "The directory in which the file sink keeps the feed, one process at a time",
  default: "feed",
  parse: Setting.text
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

/**
 * @since 1.0.0
 * @category declarations
 */
export const sinkGroup: Setting.Group = { title: "File sink", settings: [sinkDirectory] }

/**
 * @since 1.0.0
 * @category declarations
 */
export const sourceGroup: Setting.Group = { title: "File source", settings: [sourceDirectory] }

/**
 * @since 1.0.0
 * @category declarations
 */
export const artifactGroup: Setting.Group = { title: "Artifacts", settings: [artifactDirectory] }

/**
 * Reads the directory of the file sink.
 *
 * @since 1.0.0
 * @category reading
 */
export const sink: Effect.Effect<string, Setting.InvalidSetting> = Setting.read(sinkDirectory)

/**
 * Reads the directory of the file source.
 *
 * @since 1.0.0
 * @category reading
 */
export const source: Effect.Effect<string, Setting.InvalidSetting> = Setting.read(sourceDirectory)

/**
 * Reads the directory of the artifacts.
 *
 * @since 1.0.0
 * @category reading
 */
export const artifacts: Effect.Effect<string, Setting.InvalidSetting> = Setting.read(artifactDirectory)
