/**
 * Publishes the feed to a stream of NATS JetStream.
 *
 * The payload of a message is the exact text of its event. The message's sequence in the stream is the event's control
 * version. Its headers:
 *
 * - `Nats-Msg-Id`: the event id, by which the stream detects duplicates within its duplicate window.
 * - `Control-Event-Type`, `Control-Event-Tenant`: type and tenant of the event.
 * - `traceparent`: the W3C trace context of the append.
 *
 * Header values are percent-encoded where they are not visible ASCII.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { ControlVersion } from "../ControlVersion.js"
import type { FeedBound } from "../FeedBound.js"
import { Sink, SinkUnavailable, type Batch } from "../Sink.js"
import type { Connection } from "./Connection.js"
import * as Batches from "./internal/batches.js"
import * as Batching from "./internal/batching.js"
import * as Concluding from "./internal/concluding.js"
import type { Wanted } from "./internal/findings.js"
import * as Link from "./internal/link.js"
import * as LookBack from "./internal/lookBack.js"
import * as Oversized from "./internal/oversized.js"
import * as Publishing from "./internal/publishing.js"
import * as StartLines from "./internal/startLines.js"
import * as Stream from "./internal/stream.js"
import * as Subject from "./internal/subject.js"
import { layerConfig as makeLayerConfig, type LayerConfig } from "../internal/layerConfig.js"

/**
 * How the sink prevents a duplicate when it publishes an event again after the duplicate window, because the first
 * outcome is unknown.
 *
 * - `lookup`: looks up events older than the window in the stream before it publishes them. Costs nothing while the
 *   pumps keep up. After an outage it reads the headers since then.
 * - `subject`: gives each event its own subject, `….<event id>`, which the server accepts once. Needs no clock and no
 *   window, but costs the server memory for each event in the stream.
 *
 * docs/performance.md has the figures.
 *
 * @since 0.1.0
 * @category models
 */
export type Deduplication = "lookup" | "subject"

/**
 * How events are published.
 *
 * - `message`: each event is a message of its own. The events of a key are published one after another, each once the
 *   one before is acknowledged.
 * - `batch`: the events of a batch are stored together, in order, as an atomic batch of the stream: one round trip for
 *   all of them. Needs nats-server 2.12.1 and a stream with `allow_atomic`, else events are published as with `message`.
 * - `auto`: as `batch` if a key has many events in a batch and no other batch is in flight, else as `message`.
 *
 * @since 0.1.0
 * @category models
 */
export type Publish = "message" | "batch" | "auto"

/**
 * The stream to publish to, and how.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends Connection {
  readonly stream: string
  /**
   * The subject of an event. `{type}`, `{tenant_id}`, `{stack_id}`, `{event_id}` and `{ordering_key}` are replaced by
   * fields of the event. A field is one token; the type is one token for each of its parts. Invalid characters are
   * percent-encoded, and an absent field is `-`. Default `control.events.{type}`.
   */
  readonly subject?: string | undefined
  /** Whether to create a missing stream when the sink is built. Default false. */
  readonly manageStream?: boolean | undefined
  /**
   * A stream with a shorter duplicate window is rejected. A stream that the sink creates has this window. Default 2
   * minutes.
   */
  readonly minDuplicateWindow?: Duration.DurationInput | undefined
  /** Default `lookup`. */
  readonly deduplication?: Deduplication | undefined
  /** Default `auto`. */
  readonly publish?: Publish | undefined
}

/**
 * An option is invalid.
 *
 * @since 0.1.0
 * @category errors
 */
export class JetStreamSinkError extends Schema.TaggedError<JetStreamSinkError>("controlpublish/JetStreamSinkError")(
  "JetStreamSinkError",
  {
    /** The name of the option. */
    option: Schema.Literal("servers", "stream", "subject", "minDuplicateWindow"),
    reason: Schema.String
  }
) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    return `JetStreamSink, ${this.option}: ${this.reason}`
  }
}

/**
 * The defaults of the options.
 *
 * @since 0.1.0
 * @category defaults
 */
export const defaults = {
  subject: "control.events.{type}",
  manageStream: false,
  minDuplicateWindow: Duration.minutes(2),
  deduplication: "lookup",
  publish: "auto"
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
  readonly wish: Publish
}

const invalid = (option: JetStreamSinkError["option"], reason: string) => new JetStreamSinkError({ option, reason })

const settingsOf = (options: Options): Effect.Effect<Settings, JetStreamSinkError> =>
  Effect.gen(function* () {
    const { credentials, deduplication = defaults.deduplication, servers, stream: name, tls } = options
    if (servers.length === 0) return yield* invalid("servers", "is empty")
    if (servers.some((server) => server.includes("@"))) {
      return yield* invalid("servers", "an address contains a user or password: set credentials instead")
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
      once,
      wish: options.publish ?? defaults.publish
    }
  })

/**
 * Validates the options without connecting.
 *
 * @since 0.1.0
 * @category constructors
 */
export const check = (options: Options): Effect.Effect<void, JetStreamSinkError> => Effect.asVoid(settingsOf(options))

/** Milliseconds after which a check looks at the stream again. */
const lookAgain = 10_000

interface Ready {
  readonly link: Link.Link
  readonly stream: Stream.Stream
}

interface Prepared extends Ready {
  /** The sequences of known events, see {@link Publishing.Target}. */
  readonly known: ReadonlyMap<number, ControlVersion>
}

/**
 * Makes a sink that lives as long as the scope. Fails with `JetStreamSinkError` if an option is invalid.
 *
 * If the servers are unreachable or the stream is misconfigured, the sink logs it, answers `SinkUnavailable` (no event
 * is charged an attempt), and checks again on the next publish.
 *
 * @since 0.1.0
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
    const say = StartLines.make(name, settings.wish)
    const batching = Batching.make()
    let lookedAt = 0
    let bounds: ReadonlyArray<FeedBound> = []
    let recent = Oversized.nothing
    let inFlight = 0

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
            `The stream "${name}" was re-created: its versions begin again, and its events have to be restored from the outbox`
          )
        }
        created = found.created
        stream = found
        bounds = found.bounds
        lookedAt = yield* Clock.currentTimeMillis
        yield* say(findings, found.batches)
        return { link: open, stream: found }
      })

    /** Whether the batch is published as an atomic batch of the stream. */
    const isAtomic = (batch: Batch, { stream }: Ready): boolean =>
      stream.batches === "able" &&
      (settings.wish === "batch" || (settings.wish === "auto" && inFlight === 1 && Batches.pays(batch)))

    const current = (): Ready | undefined =>
      link?.isOpen() === true && stream !== undefined ? { link, stream } : undefined

    const ready: Effect.Effect<Ready, SinkUnavailable> = Effect.suspend(() => {
      const ready = current()
      return ready === undefined ? look(false) : Effect.succeed(ready)
    }).pipe(one.withPermits(1))

    /** Somebody may have changed the stream: publishes look at it only where they fail, and some settings fail none. */
    const check = Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      if (now - lookedAt >= lookAgain) {
        yield* Effect.tapError(look(false), () =>
          Effect.sync(() => {
            stream = undefined
          })
        ).pipe(one.withPermits(1))
      } else yield* ready
    })

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

    /** A result that is ready at once, as almost always, needs no timeout. */
    const prepared = (batch: Batch) => {
      const target = current()
      return target === undefined || isOld(batch, target) ? undefined : { ...target, known: nothingKnown }
    }

    const publishOne = (batch: Batch) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const target =
          prepared(batch) ??
          (yield* prepare(batch).pipe(
            Effect.timeoutFail({ duration: Math.max(batch.deadline - now, 0), onTimeout: notReady })
          ))
        const destination = { ...settings, ...target, begunAt: now }
        const ran = yield* isAtomic(batch, target)
          ? batching.run(batch, destination)
          : Publishing.run(batch, destination)
        const [result, known] = Oversized.judge(name, ran, recent)
        recent = known
        const isChanged = "isOff" in ran && ran.isOff
        if (isChanged || result.stopped !== undefined || result.unrouted.length > 0) stream = undefined
        return yield* Concluding.conclude(settings, target, batch, result)
      }).pipe(
        Effect.onError(() =>
          Effect.sync(() => {
            // The next publish checks it first.
            stream = undefined
          })
        ),
        Effect.annotateLogs(annotations)
      )

    const publish = (batch: Batch) =>
      Effect.acquireUseRelease(
        Effect.sync(() => ++inFlight),
        () => publishOne(batch),
        () => Effect.sync(() => --inFlight)
      )

    yield* Effect.addFinalizer(() => link?.close ?? Effect.void)
    yield* look(settings.manage).pipe(
      Effect.timeoutFail({ duration: startTimeout, onTimeout: notReady }),
      Effect.catchAll(({ message, reason }) =>
        (reason === "misconfigured" ? Effect.logError : Effect.logWarning)(`Nothing can be published yet. ${message}`)
      )
    )
    return Sink.of({
      name: "jetstream",
      inert: false,
      publish,
      check: check.pipe(Effect.annotateLogs(annotations)),
      bounds: Effect.sync(() => bounds)
    })
  }).pipe(Effect.annotateLogs(annotations))

/**
 * Provides a sink that publishes to a stream.
 *
 * @example
 * import { JetStreamSink } from "controlpublish/jetstream"
 *
 * export const SinkLive = JetStreamSink.layer({ servers: ["nats://127.0.0.1:4222"], stream: "control-events" })
 *
 * @since 0.1.0
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
      "The servers did not answer in time, or reading the events that the stream already has takes longer; the reading continues"
  })

/**
 * Provides the same as {@link layer}, its options read from `Config`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig: LayerConfig<Options, Sink, JetStreamSinkError, never> = makeLayerConfig(layer)
