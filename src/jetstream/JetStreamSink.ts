/**
 * A feed in a stream of NATS JetStream.
 *
 * The payload of a message is the exact text of its event, and the sequence that the stream gives it is the event's
 * control version. Its headers:
 *
 * - `Nats-Msg-Id`: the event id, by which the stream knows duplicates within its duplicate window.
 * - `Control-Event-Type`, `Control-Event-Tenant`: type and tenant of the event.
 * - `traceparent`: the W3C trace context of the append.
 *
 * Values of headers are percent-encoded where they are not visible ASCII.
 *
 * @since 1.0.0
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { ControlVersion } from "../ControlVersion.js"
import { EventRejected, published, Sink, SinkUnavailable, type Batch, type Outcome } from "../Sink.js"
import type { Connection } from "./Connection.js"
import type { Wanted } from "./internal/findings.js"
import * as Link from "./internal/link.js"
import * as LookBack from "./internal/lookBack.js"
import * as Oversized from "./internal/oversized.js"
import * as Publishing from "./internal/publishing.js"
import * as Stream from "./internal/stream.js"
import * as Subject from "./internal/subject.js"

/**
 * What keeps a second copy of an event out of the stream when it is published again after the duplicate window, because
 * nobody learnt of the first time.
 *
 * - `lookup`: an event that was appended longer ago than the window is looked for in the stream before it is published.
 *   Costs nothing as long as the pumps keep up, and after an outage a read of the headers since.
 * - `subject`: each event has a subject of its own, `….<event id>`, which the server takes once. It needs no clock and
 *   no window, and costs the server memory for each event that the stream holds.
 *
 * docs/performance.md has the figures.
 *
 * @since 1.0.0
 * @category models
 */
export type Deduplication = "lookup" | "subject"

/**
 * Where to publish, and how.
 *
 * @since 1.0.0
 * @category models
 */
export interface Options extends Connection {
  readonly stream: string
  /**
   * Where events are published to: `{type}`, `{tenant_id}`, `{stack_id}`, `{event_id}` and `{ordering_key}` stand for
   * fields of the event. A field is one token, the type one for each of its parts; what could not stand there is
   * percent-encoded, and nothing is `-`. Default `control.events.{type}`.
   */
  readonly subject?: string | undefined
  /** Whether the stream is created where it is missing when the sink is built. Default false. */
  readonly manageStream?: boolean | undefined
  /** A stream that forgets ids sooner is refused; a stream that is created remembers them for so long. Default 2 minutes. */
  readonly minDuplicateWindow?: Duration.DurationInput | undefined
  /** Default `lookup`. */
  readonly deduplication?: Deduplication | undefined
}

/**
 * An option has a value that cannot be.
 *
 * @since 1.0.0
 * @category errors
 */
export class JetStreamSinkError extends Schema.TaggedError<JetStreamSinkError>("controlpublish/JetStreamSinkError")(
  "JetStreamSinkError",
  {
    /** The option. */
    option: Schema.Literal("servers", "stream", "subject", "minDuplicateWindow"),
    reason: Schema.String
  }
) {
  /**
   * @since 1.0.0
   */
  override get message(): string {
    return `JetStreamSink, ${this.option}: ${this.reason}`
  }
}

/**
 * The options that are used where none are given.
 *
 * @since 1.0.0
 * @category defaults
 */
export const defaults = {
  subject: "control.events.{type}",
  manageStream: false,
  minDuplicateWindow: Duration.minutes(2),
  deduplication: "lookup"
} as const

/** How long the start waits for the servers. */
const startTimeout = Duration.seconds(5)

const annotations = { package: "controlpublish", module: "JetStreamSink" }

interface Settings {
  readonly connection: Connection
  readonly template: Subject.Template
  readonly wanted: Wanted
  readonly manage: boolean
  readonly once: boolean
}

const invalid = (option: JetStreamSinkError["option"], reason: string) => new JetStreamSinkError({ option, reason })

const settingsOf = (options: Options): Effect.Effect<Settings, JetStreamSinkError> =>
  Effect.gen(function* () {
    const { credentials, deduplication = defaults.deduplication, servers, stream: name, tls } = options
    if (servers.length === 0) return yield* invalid("servers", "there is none")
    if (servers.some((server) => server.includes("@"))) {
      return yield* invalid("servers", "an address has a user or password in it; give them as credentials")
    }
    if (!/^[^\s.*>/\\]+$/.test(name)) {
      return yield* invalid("stream", `got ${JSON.stringify(name)}, valid is a name without spaces and . * > / \\`)
    }
    const once = deduplication === "subject"
    const given = options.subject ?? defaults.subject
    const text = once && !given.includes("{event_id}") ? `${given}.{event_id}` : given
    const template = yield* Either.mapLeft(Subject.parse(text), (reason) =>
      invalid("subject", `got ${JSON.stringify(given)}: ${reason}`)
    )
    const window = Duration.decodeUnknown(options.minDuplicateWindow ?? defaults.minDuplicateWindow)
    if (window._tag === "None" || !Duration.isFinite(window.value) || Duration.toMillis(window.value) < 100) {
      return yield* invalid("minDuplicateWindow", "valid is a finite time of at least 100 milliseconds")
    }
    return {
      connection: { servers, credentials, tls },
      template,
      wanted: {
        name,
        pattern: template.pattern,
        eachOwnSubject: once,
        minDuplicateWindow: window.value
      },
      manage: options.manageStream ?? defaults.manageStream,
      once
    }
  })

/**
 * Whether the options can be, without connecting.
 *
 * @since 1.0.0
 * @category constructors
 */
export const check = (options: Options): Effect.Effect<void, JetStreamSinkError> => Effect.asVoid(settingsOf(options))

interface Ready {
  readonly link: Link.Link
  readonly stream: Stream.Stream
}

interface Prepared extends Ready {
  /** What the stream holds already, see {@link Publishing.Target}. */
  readonly known: ReadonlyMap<number, ControlVersion>
}

/**
 * A sink for as long as the scope. Options that cannot be fail here. Servers that cannot be reached and a stream that is
 * not as it has to be are said in the log and looked at again with each publish, until when that is `SinkUnavailable`
 * and costs no event anything.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (options: Options): Effect.Effect<Sink["Type"], JetStreamSinkError, Scope.Scope> =>
  Effect.gen(function* () {
    const settings = yield* settingsOf(options)
    const { name } = settings.wanted
    const lookBack = yield* LookBack.make(name)
    const one = yield* Effect.makeSemaphore(1)
    let link: Link.Link | undefined
    let stream: Stream.Stream | undefined
    let created: string | undefined
    let parkedForSize = 0

    const connected = Effect.gen(function* () {
      if (link?.isOpen() === true) return link
      const opened = yield* Link.open(settings.connection, (opened) => {
        link = opened
        stream = undefined
      })
      yield* Effect.logInfo(`Connected to ${opened.server}`)
      return opened
    })

    const look = (manage: boolean) =>
      Effect.gen(function* () {
        const open = yield* connected
        const [found, findings] = yield* Stream.look(open, settings.wanted, manage)
        if (created !== undefined && created !== found.created) {
          yield* Effect.logWarning(
            `The stream "${name}" was made anew: its versions begin again, and what it held has to be restored from the outbox`
          )
        }
        created = found.created
        stream = found
        return [{ link: open, stream: found }, findings] as const
      })

    const current = (): Ready | undefined =>
      link?.isOpen() === true && stream !== undefined ? { link, stream } : undefined

    const ready: Effect.Effect<Ready, SinkUnavailable> = Effect.suspend(() => {
      const ready = current()
      return ready === undefined ? Effect.map(look(false), ([found]) => found) : Effect.succeed(ready)
    }).pipe(one.withPermits(1))

    const isOld = (batch: Batch, { stream }: Ready) => !settings.once && lookBack.isNeeded(stream, batch)

    const prepare = (batch: Batch): Effect.Effect<Prepared, SinkUnavailable> =>
      Effect.gen(function* () {
        const target = yield* ready
        return { ...target, known: isOld(batch, target) ? yield* lookBack.find(target.stream, batch) : nothingKnown }
      }).pipe(
        Effect.catchTag("MadeAnew", () => {
          stream = undefined
          return prepare(batch)
        })
      )

    /** What is ready without a wait, as almost always, needs no timeout. */
    const prepared = (batch: Batch) => {
      const target = current()
      return target === undefined || isOld(batch, target) ? undefined : { ...target, known: nothingKnown }
    }

    const publish = (batch: Batch) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const target =
          prepared(batch) ??
          (yield* prepare(batch).pipe(
            Effect.timeoutFail({ duration: Math.max(batch.deadline - now, 0), onTimeout: notReady })
          ))
        const ran = yield* Publishing.run(batch, { ...settings, ...target, begunAt: now })
        const [result, parked] = Oversized.judge(name, ran, parkedForSize)
        parkedForSize = parked
        if (result.stopped !== undefined || result.unrouted.length > 0) stream = undefined
        return yield* conclude(settings, target, batch, result)
      }).pipe(
        Effect.onError(() =>
          Effect.sync(() => {
            // Whoever publishes next looks at it first.
            stream = undefined
          })
        ),
        Effect.annotateLogs(annotations)
      )

    yield* Effect.addFinalizer(() => link?.close ?? Effect.void)
    yield* look(settings.manage).pipe(
      Effect.timeoutFail({ duration: startTimeout, onTimeout: notReady }),
      Effect.matchEffect({
        onSuccess: ([, findings]) =>
          Effect.forEach(
            findings,
            ({ doubtful, line }) => (doubtful ? Effect.logWarning(line) : Effect.logInfo(line)),
            {
              discard: true
            }
          ),
        onFailure: (error) =>
          error.reason === "misconfigured"
            ? Effect.logError(`Nothing can be published yet. ${error.message}`)
            : Effect.logWarning(`Nothing can be published yet. ${error.message}`)
      })
    )
    return Sink.of({
      name: "jetstream",
      inert: false,
      publish,
      check: Effect.asVoid(ready).pipe(Effect.annotateLogs(annotations))
    })
  }).pipe(Effect.annotateLogs(annotations))

/**
 * Publishes to a stream.
 *
 * @example
 * import { JetStreamSink } from "controlpublish/jetstream"
 *
 * export const SinkLive = JetStreamSink.layer({ servers: ["nats://127.0.0.1:4222"], stream: "control-events" })
 *
 * @since 1.0.0
 * @category layers
 */
export const layer = (options: Options): Layer.Layer<Sink, JetStreamSinkError> => Layer.scoped(Sink, make(options))

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

const nothingKnown: ReadonlyMap<number, ControlVersion> = new Map()

const notReady = () =>
  new SinkUnavailable({
    sink: "jetstream",
    reason: "timeout",
    message:
      "The servers did not answer in time, or it takes longer to read what the stream holds already; that goes on"
  })

/** Answers what became of events of a batch, by their indexes in it. */
type Settle = (
  settings: Settings,
  ready: Ready,
  batch: Batch,
  indexes: ReadonlyArray<number>
) => Effect.Effect<ReadonlyArray<readonly [index: number, Outcome]>, SinkUnavailable>

/** Asks for the sequences of events that the stream held already. */
const resolve: Settle = (settings, { stream }, batch, indexes) =>
  Effect.forEach(indexes, (index) =>
    Effect.map(
      Stream.sequenceOn(stream, settings.wanted.name, settings.template.subjectOf(batch.events[index]!)),
      (sequence) => [index, published(sequence, true)] as const
    )
  )

/** What to say of events that no stream took: whether that is because of them, or of the stream. */
const judge: Settle = (settings, { link }, batch, indexes) =>
  Effect.map(Stream.look(link, settings.wanted, false), ([stream]) =>
    indexes.flatMap((index) => {
      const { eventId } = batch.events[index]!
      const subject = settings.template.subjectOf(batch.events[index]!)
      if (Stream.takes(stream, subject)) return []
      const message = `Its subject ${subject} is none of the stream's, which takes ${stream.subjects.join(", ")}`
      return [[index, new EventRejected({ eventId, message })] as const]
    })
  )

const conclude = (
  settings: Settings,
  ready: Ready,
  batch: Batch,
  result: Publishing.Result
): Effect.Effect<ReadonlyArray<Outcome>, SinkUnavailable> =>
  Effect.gen(function* () {
    const outcomes = [...result.outcomes]
    let { stopped } = result
    for (const [indexes, settle] of [
      [result.storedBefore, resolve],
      [result.unrouted, judge]
    ] as const) {
      if (indexes.length === 0) continue
      const settled = yield* Effect.either(settle(settings, ready, batch, indexes))
      if (Either.isRight(settled)) for (const [index, outcome] of settled.right) outcomes[index] = outcome
      else stopped ??= settled.left
    }
    if (outcomes.every((outcome) => outcome._tag === "NotAttempted")) return yield* stopped ?? noLeader()
    if (stopped !== undefined) yield* Effect.logWarning("A batch was published in part", stopped)
    return outcomes
  })

const noLeader = () =>
  new SinkUnavailable({
    sink: "jetstream",
    reason: "unreachable",
    message: "The stream is there and takes the subject, and yet no server answered: it has no leader now"
  })
