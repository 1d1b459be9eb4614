import {
  JetStreamApiError,
  jetstreamManager,
  StorageType,
  type JetStreamManager,
  type NextMsgRequest,
  type SeqMsgRequest,
  type StoredMsg
} from "@nats-io/jetstream"
import { jserrors } from "@nats-io/jetstream/internal"
import { millis, nanos } from "@nats-io/transport-node"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { ControlVersion } from "../../ControlVersion.js"
import type { FeedBound } from "../../FeedBound.js"
import { SinkUnavailable } from "../../Sink.js"
import * as Batches from "./batches.js"
import { findings, type Finding, type Wanted } from "./findings.js"
import { toUnavailable, type Link } from "./link.js"
import * as Subject from "./subject.js"

/** A stream that can be published to, as of the last look. */
export interface Stream {
  readonly manager: JetStreamManager
  /** Distinguishes a stream from a later one of the same name. */
  readonly created: string
  readonly subjects: ReadonlyArray<string>
  /** Whether it takes every subject that events are published to. */
  readonly takesAll: boolean
  /** The duplicate window, in milliseconds. */
  readonly duplicateWindow: number
  readonly batches: Batches.Ability
  /** What somebody has to know of its settings. */
  readonly bounds: ReadonlyArray<FeedBound>
}

const requestTimeout = 3_000

const misconfigured = (message: string, cause?: unknown) =>
  new SinkUnavailable({
    sink: "jetstream",
    reason: "misconfigured",
    message,
    ...(cause === undefined ? {} : { cause })
  })

const toError = (name: string, doing: string) => (cause: unknown) => {
  if (cause instanceof jserrors.StreamNotFoundError) {
    return misconfigured(
      `There is no stream "${name}": create it, or start with NATS_MANAGE_STREAM=true (manageStream) to have it created`,
      cause
    )
  }
  if (cause instanceof jserrors.JetStreamNotEnabled) {
    return misconfigured(
      "JetStream is disabled: enable it in the servers' configuration (jetstream {}) and for the account",
      cause
    )
  }
  // 4xx: the request cannot be granted as it is.
  if (cause instanceof JetStreamApiError && cause.status < 500) {
    return misconfigured(`${doing}: ${cause.message} (${cause.code})`, cause)
  }
  return toUnavailable(doing)(cause)
}

/** Runs a request to the API of JetStream. */
export const request = <A>(name: string, doing: string, run: () => Promise<A>): Effect.Effect<A, SinkUnavailable> =>
  Effect.tryPromise({ try: run, catch: toError(name, doing) })

const create = (manager: JetStreamManager, wanted: Wanted, version: string) =>
  request(wanted.name, `Cannot create the stream "${wanted.name}"`, () =>
    manager.streams.add({
      name: wanted.name,
      subjects: [wanted.pattern],
      storage: StorageType.File,
      duplicate_window: nanos(Duration.toMillis(wanted.minDuplicateWindow)),
      ...(Batches.canCreate(version) ? { allow_atomic: true } : {})
    })
  )

/** Whether the stream takes messages on a subject. */
export const takes = (stream: Stream, subject: string): boolean => Subject.coveredBy(stream.subjects, subject)

/** Checks the stream, and creates it if it is missing and `manage` is set. Fails if the sink cannot publish to it. */
export const look = (
  link: Link,
  wanted: Wanted,
  manage: boolean
): Effect.Effect<readonly [Stream, ReadonlyArray<Finding>], SinkUnavailable> =>
  Effect.gen(function* () {
    const { name } = wanted
    const asking = `Cannot ask for the stream "${name}"`
    const manager = yield* request(name, asking, () =>
      jetstreamManager(link.nc, { checkAPI: false, timeout: requestTimeout })
    )
    const ask = request(name, asking, () => manager.streams.info(name))
    const info = yield* manage
      ? ask.pipe(
          Effect.catchIf(
            (error) => error.cause instanceof jserrors.StreamNotFoundError,
            () => Effect.zipRight(create(manager, wanted, link.version), ask)
          )
        )
      : ask
    const found = findings(info.config, wanted)
    const missing = found.filter(({ ok }) => !ok)
    if (missing.length > 0) return yield* misconfigured(missing.map(({ line }) => line).join("; "))
    const stream: Stream = {
      manager,
      created: info.created,
      subjects: info.config.subjects,
      takesAll: Subject.coveredBy(info.config.subjects, wanted.pattern),
      duplicateWindow: millis(info.config.duplicate_window),
      batches: Batches.abilityOf(info.config, link.version),
      bounds: found.flatMap(({ bound }) => (bound === undefined ? [] : [bound]))
    }
    return [stream, found] as const
  })

/** The first message at or after a sequence, read from the leader of the stream; `null` if there is none. */
export const firstFrom = (
  { manager }: Pick<Stream, "manager">,
  name: string,
  doing: string,
  seq: number
): Effect.Effect<StoredMsg | null, SinkUnavailable> => {
  const query: NextMsgRequest & SeqMsgRequest = { seq, next_by_subj: ">" }
  return request(name, doing, () => manager.streams.getMessage(name, query))
}

/** The error if the leader of the stream lacks a message that another server has. */
export const behind = (name: string, seq: number): SinkUnavailable =>
  new SinkUnavailable({
    sink: "jetstream",
    reason: "unreachable",
    message: `The leader of the stream "${name}" does not have message ${seq} yet, which another server has`
  })

/** The sequence of the only message on a subject. */
export const sequenceOn = (
  stream: Stream,
  name: string,
  subject: string
): Effect.Effect<ControlVersion, SinkUnavailable> =>
  Effect.flatMap(
    request(name, `Cannot ask the stream "${name}" for ${subject}`, () =>
      stream.manager.streams.getMessage(name, { last_by_subj: subject })
    ),
    (message) =>
      message === null
        ? // It was removed since, or another server leads now: what is published again will tell.
          new SinkUnavailable({
            sink: "jetstream",
            reason: "unreachable",
            message: `The stream "${name}" rejected a second message on ${subject}, but holds none there now`
          })
        : Effect.succeed(message.seq as ControlVersion)
  )
