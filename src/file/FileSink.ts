/**
 * Publishes into a directory: one file for each event. docs/file-feed.md describes the format.
 *
 * In the directory:
 *
 * - `<encoded event id>.json`: an event with its control version. It appears whole and never changes.
 * - `.feed-id`: the identity of the feed. A new feed has another one.
 * - `.next-version`: the next version after a restart. If it is missing, every event file is read once.
 * - `.lock`: the process that publishes into the directory. There is only one.
 * - `.placing`: the order in which the events of a batch appear, to finish it after a power loss.
 * - `.tmp-…`: events that are being written. The next start removes those that a crash left.
 *
 * Event files appear in the order of their versions. Readers ignore names that start with a dot. You may remove files
 * that no reader needs any more; an event that comes again after that is published again.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Path from "node:path"
import * as ControlEvent from "../ControlEvent.js"
import * as ControlVersion from "../ControlVersion.js"
import type { EventId } from "../EventId.js"
import type { OrderingKey } from "../OrderingKey.js"
import {
  EventFailed,
  notAttempted,
  published,
  Sink,
  SinkUnavailable,
  type Batch,
  type OutboundEvent,
  type Outcome
} from "../Sink.js"
import * as FeedDirectory from "./internal/feedDirectory.js"
import type { Access } from "./internal/access.js"
import { fileName, maxEventBytes } from "./internal/fileName.js"
import * as Files from "./internal/files.js"
import * as VersionFile from "./internal/versionFile.js"
import { layerConfig as makeLayerConfig, type LayerConfig } from "../internal/layerConfig.js"

/**
 * The directory cannot be used. The message is one line that names the directory and, if known, says what to do.
 *
 * @since 0.1.0
 * @category errors
 */
export class FileSinkError extends Schema.TaggedError<FileSinkError>("controlpublish/FileSinkError")("FileSinkError", {
  /** `locked`: another process or layer publishes into it, or may · `unusable`: it cannot be read or written. */
  reason: Schema.Literal("locked", "unusable"),
  directory: Schema.String,
  message: Schema.String,
  cause: Schema.optionalWith(Schema.Defect, { exact: true })
}) {}

/**
 * Where the feed is, and who may read it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Relative to the working directory. */
  readonly directory: string
  /**
   * Who may read the feed: `owner`, the user that publishes (files 0600, directories 0700); `group`, its group as well
   * (0640, 0750); `all`, every user of the machine (0644, 0755). Default `owner`.
   */
  readonly access?: Access | undefined
}

/**
 * Opens a directory until the scope closes, and creates it if it is missing. Fails with {@link FileSinkError} if
 * another process publishes into it or it cannot be used.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options): Effect.Effect<Sink["Type"], FileSinkError, Scope.Scope> =>
  Effect.gen(function* () {
    const path = Path.resolve(options.directory)
    const directory = yield* FeedDirectory.open(path, options.access).pipe(
      Effect.mapError((error) =>
        error._tag === "DirectoryLocked"
          ? new FileSinkError({ reason: "locked", directory: path, message: error.message })
          : new FileSinkError({
              reason: "unusable",
              directory: path,
              message: `Cannot use the directory ${path}: ${error.message}`,
              cause: error.cause
            })
      )
    )
    return Sink.of({
      name: "file",
      inert: false,
      publish: (batch) => publish(directory, batch)
    })
  }).pipe(Effect.annotateLogs(annotations))

/**
 * Publishes into a directory. Fails with {@link FileSinkError} if another process publishes into it or it cannot be
 * used.
 *
 * @example
 * import { FileSink } from "controlpublish/file"
 *
 * export const SinkLive = FileSink.layer({ directory: "feed" })
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: Options): Layer.Layer<Sink, FileSinkError> => Layer.scoped(Sink, make(options))

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

const annotations = { package: "controlpublish", module: "FileSink" }

/**
 * Provides the same as {@link layer}, its options read from `Config`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig: LayerConfig<Options, Sink, FileSinkError, never> = makeLayerConfig(layer)

/** Files that are read or written at a time. */
const concurrency = 16

const reasons: Readonly<Record<string, SinkUnavailable["reason"]>> = {
  ENOSPC: "full",
  EDQUOT: "full",
  EROFS: "misconfigured",
  EACCES: "misconfigured",
  EPERM: "misconfigured",
  ENOTDIR: "misconfigured"
}

const toUnavailable = (path: string, error: Files.FileError): SinkUnavailable =>
  new SinkUnavailable({
    sink: "file",
    reason: reasons[error.code] ?? "unreachable",
    message: `Cannot publish into the directory ${path}: ${error.message}`,
    cause: error
  })

const publish = (directory: FeedDirectory.FeedDirectory, batch: Batch) =>
  directory.exclusively(publishBatch(directory, batch)).pipe(
    Effect.catchTags({
      FileError: (error) => Effect.fail(toUnavailable(directory.path, error)),
      DirectoryLocked: ({ message }) =>
        Effect.fail(new SinkUnavailable({ sink: "file", reason: "misconfigured", message }))
    }),
    Effect.annotateLogs(annotations)
  )

/** An event that was not in the feed at the start of the batch. */
interface Draft {
  readonly event: OutboundEvent
  readonly version: ControlVersion.ControlVersion
  /** Where its file is written. */
  readonly temporary: string
  placed: boolean
}

const publishBatch = Effect.fnUntraced(function* (directory: FeedDirectory.FeedDirectory, batch: Batch) {
  const { mode, path, reserve } = directory
  const recorded = yield* Effect.forEach(batch.events, (event) => lookUp(path, event), { concurrency })
  const absent = new Map<EventId, OutboundEvent>()
  batch.events.forEach((event, index) => {
    if (recorded[index] === undefined && !absent.has(event.eventId)) absent.set(event.eventId, event)
  })
  const first = yield* reserve(absent.size)
  const drafts = Array.from(absent.values(), (event, index): Draft => {
    const version = ControlVersion.make(first + index)
    return { event, version, temporary: Files.temporaryPath(path), placed: false }
  })
  return yield* Effect.forEach(drafts, write(mode), { concurrency, discard: true }).pipe(
    Effect.zipRight(directory.begin(hasOrder(batch) ? drafts.map(stepOf) : [])),
    Effect.zipRight(Effect.suspend(() => place(directory, batch, recorded, drafts))),
    Effect.ensuring(discard(drafts))
  )
})

/** Looks for an event in the directory: finds nothing, the event, or something in its place. */
const lookUp = (path: string, { eventId }: OutboundEvent): Effect.Effect<Outcome | undefined, Files.FileError> => {
  const file = Path.join(path, fileName(eventId))
  const failed = (what: string, cause?: Files.FileError) =>
    new EventFailed({
      eventId,
      message: `Restore this file, or move it away to publish the event again: ${file} ${what}`,
      ...(cause === undefined ? {} : { cause })
    })
  return Files.ifPresent(Files.read(file, maxEventBytes)).pipe(
    Effect.map((text) => {
      if (text === undefined) return undefined
      const { control_version, event_id } = VersionFile.parse(text)
      return event_id === eventId && ControlVersion.is(control_version)
        ? published(control_version, true)
        : failed("does not hold the event with its control_version")
    }),
    // The directory itself can be searched: it could a moment ago.
    Effect.catchIf(
      (error) => Files.isNoFile(error) || ["ENAMETOOLONG", "EACCES", "EPERM"].includes(error.code),
      (error) => Effect.succeed(failed(`cannot be read: ${error.message}`, error))
    )
  )
}

const write =
  (mode: number) =>
  ({ event, temporary, version }: Draft): Effect.Effect<void, Files.FileError> =>
    Files.create(temporary, ControlEvent.withControlVersion(event.payload, version), mode)

const stepOf = ({ event, temporary }: Draft) => [Path.basename(temporary), fileName(event.eventId)] as const

/** Tells whether a key has several events in the batch, whose order a power loss must keep. */
const hasOrder = ({ events }: Batch): boolean =>
  new Set(events.map(({ orderingKey }) => orderingKey)).size < events.length

/** Renames the drafts one after another, in the order of the batch. */
const place = Effect.fnUntraced(function* (
  { path, settle }: FeedDirectory.FeedDirectory,
  batch: Batch,
  recorded: ReadonlyArray<Outcome | undefined>,
  drafts: ReadonlyArray<Draft>
) {
  const byId = new Map(drafts.map((draft) => [draft.event.eventId, draft]))
  const outcomes: Array<Outcome> = batch.events.map(() => notAttempted)
  const stopped = new Set<OrderingKey>()
  let failure: SinkUnavailable | undefined
  for (const [index, event] of batch.events.entries()) {
    if (stopped.has(event.orderingKey)) continue
    const outcome = recorded[index] ?? (yield* placeOne(path, byId.get(event.eventId)!, batch.deadline))
    if (outcome._tag === "SinkUnavailable") {
      failure = outcome
      break
    }
    outcomes[index] = outcome
    if (outcome._tag !== "Published") stopped.add(event.orderingKey)
  }
  if (failure !== undefined) {
    if (outcomes.every((outcome) => outcome._tag === "NotAttempted")) return yield* failure
    yield* Effect.logWarning("A batch was published in part", failure)
  }
  // Also for duplicates: the batch that renamed them may have been interrupted before this.
  if (outcomes.some((outcome) => outcome._tag === "Published")) yield* settle
  return outcomes
})

const placeOne = Effect.fnUntraced(function* (path: string, draft: Draft, deadline: number) {
  // The same event again, in one batch.
  if (draft.placed) return published(draft.version, true)
  if ((yield* Clock.currentTimeMillis) >= deadline) {
    return new SinkUnavailable({ sink: "file", reason: "timeout", message: `Writing into ${path} took too long` })
  }
  const renamed = yield* Effect.either(Files.rename(draft.temporary, Path.join(path, fileName(draft.event.eventId))))
  if (Either.isLeft(renamed)) return toUnavailable(path, renamed.left)
  draft.placed = true
  return published(draft.version)
})

const discard = (drafts: ReadonlyArray<Draft>): Effect.Effect<void> =>
  Effect.forEach(drafts, ({ placed, temporary }) => (placed ? Effect.void : Files.remove(temporary)), {
    discard: true
  }).pipe(Effect.catchAll((error) => Effect.logWarning("Temporary files stay until the next start", error)))
