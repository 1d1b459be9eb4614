/**
 * Reads the feed of `JetStreamSink` with an ordered consumer. The node keeps its position; the server keeps nothing of
 * a node.
 *
 * @since 0.1.0
 */
import {
  DeliverPolicy,
  jetstreamManager,
  type Consumer,
  type ConsumerMessages,
  type JetStreamManager,
  type JsMsg,
  type StreamState
} from "@nats-io/jetstream"
import { jserrors } from "@nats-io/jetstream/internal"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { ControlVersion } from "../ControlVersion.js"
import type { FeedBound, Reach } from "../FeedBound.js"
import type { SinkUnavailable } from "../Sink.js"
import type { Connection } from "./Connection.js"
import { forNode } from "./internal/findings.js"
import * as Link from "./internal/link.js"
import * as Message from "./internal/message.js"
import * as JetStream from "./internal/stream.js"
import { beyond, Source, SourceError, type Feed, type FeedEvent, type Margin, type Position } from "../fleet/Source.js"
import { layerConfig as makeLayerConfig, type LayerConfig } from "../internal/layerConfig.js"

/**
 * The stream to read, and how to reach its servers.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends Connection {
  readonly stream: string
}

const requestTimeout = 3_000

/** Events of one request: the most that a stalled reader holds. */
const fetchSize = 500

/** How long one request for events stays open, in milliseconds. */
const fetchTime = 10_000

const failure = (reason: SourceError["reason"], message: string, cause?: unknown) =>
  new SourceError({ source: "jetstream", reason, message, ...(cause === undefined ? {} : { cause }) })

const ofLink = ({ cause, message, reason }: SinkUnavailable): SourceError =>
  failure(reason === "misconfigured" ? reason : "unavailable", message, cause)

const ofCause =
  (stream: string, doing: string) =>
  (cause: unknown): SourceError => {
    if (cause instanceof jserrors.StreamNotFoundError) {
      return failure("misconfigured", `There is no stream "${stream}": create it, or set NATS_STREAM (stream)`, cause)
    }
    if (cause instanceof jserrors.JetStreamNotEnabled) {
      return failure("misconfigured", "JetStream is disabled: enable it for the servers and for the account", cause)
    }
    return ofLink(Link.toUnavailable(doing)(cause))
  }

interface Opened {
  readonly link: Link.Link
  readonly manager: JetStreamManager
}

/**
 * Makes a source that connects on first use. While the servers are unreachable, each use fails with a `SourceError`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options): Effect.Effect<Source["Type"], never, Scope.Scope> =>
  Effect.gen(function* () {
    const { stream: name } = options
    const doing = `Cannot read the stream "${name}"`
    const one = yield* Effect.makeSemaphore(1)
    let link: Link.Link | undefined
    let opened: Opened | undefined
    let said: ReadonlySet<string> = new Set()

    const request = <A>(run: () => Promise<A>) => Effect.tryPromise({ try: run, catch: ofCause(name, doing) })

    const connected = Effect.suspend(() =>
      link?.isOpen() === true
        ? Effect.succeed(link)
        : Effect.mapError(
            Link.open(options, (opened) => {
              link = opened
            }),
            ofLink
          )
    )

    const open: Effect.Effect<Opened, SourceError> = Effect.gen(function* () {
      const link = yield* connected
      if (opened?.link === link) return opened
      const manager = yield* request(() => jetstreamManager(link.nc, { checkAPI: false, timeout: requestTimeout }))
      opened = { link, manager }
      return opened
    }).pipe(one.withPermits(1))

    /** Said at the first look, and again when somebody changes the stream. */
    const say = (bounds: ReadonlyArray<FeedBound>) =>
      Effect.suspend(() => {
        const news = bounds.filter(({ message }) => !said.has(message))
        said = new Set(bounds.map(({ message }) => message))
        return Effect.forEach(news, ({ message }) => Effect.logWarning(message), { discard: true })
      }).pipe(Effect.annotateLogs({ package: "controlpublish", module: "JetStreamSource" }))

    const info = ({ manager }: Opened) =>
      Effect.gen(function* () {
        const found = yield* request(() => manager.streams.info(name))
        const { bounds, missing } = forNode(found.config, name)
        if (missing !== undefined) return yield* failure("misconfigured", missing)
        yield* say(bounds)
        return { ...found, bounds }
      })

    const find = (opened: Opened): Effect.Effect<Feed, SourceError> =>
      Effect.map(info(opened), ({ created, state }) => ({
        identity: `${name}@${created}`,
        newest: state.last_seq,
        oldest: state.messages === 0 ? state.last_seq + 1 : state.first_seq
      }))

    const look = Effect.flatMap(open, find)

    const margin = (position: Position): Effect.Effect<Margin, SourceError> =>
      Effect.gen(function* () {
        const found = yield* open
        const { bounds, state } = yield* info(found)
        const reach = bounds.find(({ reach }) => reach !== undefined)?.reach
        if (reach === undefined || state.last_seq <= position) return { used: 0, bounds }
        const next =
          reach.millis === undefined
            ? undefined
            : yield* Effect.mapError(JetStream.firstFrom(found, name, doing, position + 1), ofLink)
        const age = next == null ? 0 : (yield* Clock.currentTimeMillis) - next.time.getTime()
        return { used: used(reach, state, position, age), bounds }
      })

    const check = (found: Feed, after: Position): Effect.Effect<void, SourceError> => {
      if (found.newest < after) return beyond("jetstream", after, found.newest)
      return found.oldest > after + 1 ? removed(name, after, found.oldest) : Effect.void
    }

    const consume = ({ manager }: Opened, after: Position) =>
      Effect.acquireRelease(
        request(() =>
          manager.jetstream().consumers.get(name, {
            deliver_policy: DeliverPolicy.StartSequence,
            opt_start_seq: after + 1
          })
        ),
        // The server removes a consumer by itself if nobody reads from it.
        (consumer) => Effect.promise(() => consumer.delete().catch(() => false)).pipe(Effect.timeoutOption(1_000))
      )

    /** The state of a reader. */
    interface Reader {
      readonly opened: Opened
      readonly consumer: Consumer
      readonly identity: string
      position: Position
    }

    const read = (reader: Reader, message: JsMsg): Either.Either<FeedEvent, SourceError> => {
      const { seq } = message
      if (seq !== reader.position + 1) return Either.left(removed(name, reader.position, seq))
      reader.position = seq
      const traceparent = message.headers?.get(Message.header.traceparent) ?? ""
      return Either.right({
        version: seq as ControlVersion,
        text: message.string(),
        traceparent: traceparent === "" ? undefined : traceparent
      })
    }

    /** Fails unless the stream is the one that was read and still has the next message. */
    const verify = (reader: Reader): Effect.Effect<void, SourceError> =>
      Effect.flatMap(find(reader.opened), (found) =>
        found.identity === reader.identity ? check(found, reader.position) : replaced(name)
      )

    /**
     * Classifies an error. Any server may have caused it, even one that is catching up: only the leader knows a gap.
     */
    const judge = (reader: Reader, error: SourceError): Effect.Effect<never, SourceError> =>
      Effect.gen(function* () {
        yield* verify(reader)
        if (error.reason !== "gap") return yield* error
        const next = yield* Effect.mapError(
          JetStream.firstFrom(reader.opened, name, doing, reader.position + 1),
          ofLink
        )
        return yield* next?.seq === reader.position + 1 ? lagging(name, next.seq) : error
      })

    // The iterator itself cannot be interrupted while it waits for a message. Messages that arrived together are one
    // chunk.
    const arrivals = (reader: Reader) => (messages: ConsumerMessages) =>
      Stream.asyncPush<FeedEvent, SourceError>(
        (emit) =>
          Effect.acquireRelease(
            Effect.sync(() => {
              void (async () => {
                try {
                  for await (const message of messages) {
                    // A server that lags behind starts with the messages that it has.
                    if (message.seq <= reader.position) continue
                    const event = read(reader, message)
                    if (Either.isLeft(event)) {
                      emit.fail(event.left)
                      return
                    }
                    emit.single(event.right)
                  }
                  emit.end()
                } catch (cause) {
                  emit.fail(ofCause(name, doing)(cause))
                }
              })()
            }),
            () => Effect.sync(() => void messages.close())
          ),
        { bufferSize: "unbounded" }
      )

    /** The messages of one request, as they arrive. */
    const fetch = (reader: Reader) =>
      verify(reader).pipe(
        Effect.zipRight(
          request(() => reader.consumer.fetch({ max_messages: fetchSize, expires: fetchTime, idle_heartbeat: 2_000 }))
        ),
        Effect.map(arrivals(reader)),
        Stream.unwrap,
        // A consumer is lost with its stream. Only the stream tells whether it was removed or re-created.
        Stream.catchAll((error) => Stream.fromEffect(judge(reader, error)))
      )

    const events = (after: Position, feed: string | undefined) =>
      Effect.gen(function* () {
        const opened = yield* open
        const found = yield* find(opened)
        if (feed !== undefined && feed !== found.identity) return yield* replaced(name)
        yield* check(found, after)
        const consumer = yield* consume(opened, after)
        return Stream.forever(fetch({ opened, consumer, identity: found.identity, position: after }))
      })

    yield* Effect.addFinalizer(() => link?.close ?? Effect.void)
    return Source.of({
      name: "jetstream",
      inert: false,
      look,
      margin,
      events: (after, feed) => Stream.unwrapScoped(events(after, feed)),
      acknowledge: () => Effect.void
    })
  })

/**
 * Provides the source of a node.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: Options): Layer.Layer<Source> => Layer.scoped(Source, make(options))

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

/** How much of what the stream keeps lies after a position, of which the next event has this age. */
const used = (reach: Reach, { bytes, last_seq, messages }: StreamState, position: Position, age: number): number => {
  const unread = last_seq - position
  const shares = [
    reach.events === undefined ? 0 : unread / reach.events,
    // As large as those that the stream holds are on average.
    reach.bytes === undefined || messages === 0 ? 0 : (unread * (bytes / messages)) / reach.bytes,
    reach.millis === undefined ? 0 : age / reach.millis
  ]
  return Math.min(Math.max(...shares), 1)
}

const removed = (stream: string, after: Position, oldest: Position) =>
  failure(
    "gap",
    `The stream "${stream}" continues at ${oldest} after ${after}: the events between were removed, and this node needs a snapshot`
  )

const lagging = (stream: string, version: Position) =>
  failure("unavailable", `A server of the stream "${stream}" lacks ${version}, which the leader has: it is catching up`)

const replaced = (stream: string) =>
  failure("replaced", `The stream "${stream}" was re-created while it was read: its versions begin again`)

/**
 * Provides the same as {@link layer}, its options read from `Config`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig: LayerConfig<Options, Source, never, never> = makeLayerConfig(layer)
