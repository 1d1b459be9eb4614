/**
 * Where control events are published to.
 *
 * @since 0.1.0
 */
import type * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type { ControlEvent } from "./ControlEvent.js"
import type { ControlVersion } from "./ControlVersion.js"
import type { EventId } from "./EventId.js"
import type { FeedBound } from "./FeedBound.js"
import type { OrderingKey } from "./OrderingKey.js"

/**
 * Publishes batches of events to a feed.
 *
 * A sink promises:
 *
 * - The events of one ordering key are appended to the feed in the order given.
 * - After an event that was not published, no later event of its key is attempted: they are `NotAttempted`.
 * - Versions are positive, and later events have higher ones.
 * - For an event id that is already in the feed it returns the first version, as a `duplicate`, as far back as the sink
 *   can tell.
 * - Nothing is sent after the batch's deadline.
 *
 * `sinkConformance` in `controlpublish/testing` checks them.
 *
 * @since 0.1.0
 * @category models
 */
export class Sink extends Context.Tag("controlpublish/Sink")<
  Sink,
  {
    /** The sink's name in settings, logs and metrics. */
    readonly name: string
    /** Whether a pump with this sink does nothing: no query, no fiber, no connection. */
    readonly inert: boolean
    /**
     * Publishes a batch and returns one outcome per event, at its index. Fails with `SinkUnavailable` if no event was
     * published; then no event is charged an attempt. A sink that becomes unavailable half-way returns what it knows,
     * and `NotAttempted` for the rest. The outcome of an interrupted publish is unknown: the events come again.
     */
    readonly publish: (batch: Batch) => Effect.Effect<ReadonlyArray<Outcome>, SinkUnavailable>
    /**
     * Checks whether a publish could succeed now. Absent if only a publish can tell.
     */
    readonly check?: Effect.Effect<void, SinkUnavailable>
    /**
     * What the settings of the feed limit, as the sink found them last. Status and dashboard show it. Absent if the sink
     * knows of no limit.
     */
    readonly bounds?: Effect.Effect<ReadonlyArray<FeedBound>>
  }
>() {}

/**
 * Events to publish together.
 *
 * @since 0.1.0
 * @category models
 */
export interface Batch {
  /** In the order of the outbox. */
  readonly events: Arr.NonEmptyReadonlyArray<OutboundEvent>
  /** The instant after which nothing of the batch may be sent, in milliseconds since the epoch. */
  readonly deadline: number
}

/**
 * An event on its way to the feed.
 *
 * @since 0.1.0
 * @category models
 */
export interface OutboundEvent {
  readonly eventId: EventId
  readonly orderingKey: OrderingKey
  /** The event, decoded and valid. */
  readonly event: ControlEvent
  /** The event's exact JSON text, without a control version (see `ControlEvent.withControlVersion`). */
  readonly payload: string
  /** W3C trace context of the append. */
  readonly traceparent: string | undefined
  /** When the row was created, in milliseconds since the epoch. */
  readonly createdAt: number
  /** Earlier attempts that failed for this event alone. */
  readonly attemptCount: number
}

/**
 * The outcome of one event of a batch.
 *
 * @since 0.1.0
 * @category models
 */
export type Outcome = Published | EventRejected | EventFailed | NotAttempted

/**
 * The event is in the feed.
 *
 * @since 0.1.0
 * @category models
 */
export interface Published {
  readonly _tag: "Published"
  readonly version: ControlVersion
  /** Whether the feed already had the event, under this version. */
  readonly duplicate: boolean
}

/**
 * Makes the outcome of an event that is in the feed.
 *
 * @since 0.1.0
 * @category constructors
 */
export const published = (version: ControlVersion, duplicate = false): Published => ({
  _tag: "Published",
  version,
  duplicate
})

/**
 * The event is not known to be in the feed: the sink did not try it, or does not know the result. The pump gives it to
 * the sink again. So a sink whose broker cannot detect duplicates must not return this for an event that may have been
 * stored, unless a second copy is acceptable.
 *
 * @since 0.1.0
 * @category models
 */
export interface NotAttempted {
  readonly _tag: "NotAttempted"
}

/**
 * The outcome of an event that is not known to be in the feed.
 *
 * @since 0.1.0
 * @category constructors
 */
export const notAttempted: NotAttempted = { _tag: "NotAttempted" }

/**
 * The sink will never take this event. A retry cannot help, so the pump parks it.
 *
 * @since 0.1.0
 * @category errors
 */
export class EventRejected extends Schema.TaggedError<EventRejected>("controlpublish/EventRejected")("EventRejected", {
  eventId: Schema.String,
  message: Schema.String,
  cause: Schema.optionalWith(Schema.Defect, { exact: true })
}) {}

/**
 * The sink cannot take this event now, but can take others. The pump retries it, and its key waits behind it.
 *
 * @since 0.1.0
 * @category errors
 */
export class EventFailed extends Schema.TaggedError<EventFailed>("controlpublish/EventFailed")("EventFailed", {
  eventId: Schema.String,
  message: Schema.String,
  cause: Schema.optionalWith(Schema.Defect, { exact: true })
}) {}

/**
 * The sink takes no event at all. The pump backs off as a whole until the cause is gone, and no event is charged an
 * attempt.
 *
 * @since 0.1.0
 * @category errors
 */
export class SinkUnavailable extends Schema.TaggedError<SinkUnavailable>("controlpublish/SinkUnavailable")(
  "SinkUnavailable",
  {
    sink: Schema.String,
    /**
     * `unreachable`: it does not answer · `timeout`: it did not answer in time · `full`: it has no room ·
     * `misconfigured`: somebody must change a setting · `defect`: it broke its own contract.
     */
    reason: Schema.Literal("unreachable", "timeout", "full", "misconfigured", "defect"),
    message: Schema.String,
    cause: Schema.optionalWith(Schema.Defect, { exact: true })
  }
) {}

/**
 * Makes a sink from a function that appends one event. Up to `concurrency` keys are published in parallel and the
 * events of one key one after another. A key stops at its first failure; everything stops at the deadline and once the
 * feed is unavailable.
 *
 * @example
 * import { ControlVersion, Sink } from "controlpublish"
 * import { Effect } from "effect"
 *
 * declare const post: (body: string) => Effect.Effect<number, Error>
 *
 * export const sink = Sink.fromAppend({
 *   name: "http",
 *   append: ({ payload }) =>
 *     post(payload).pipe(
 *       Effect.map((version) => Sink.published(ControlVersion.make(version))),
 *       Effect.mapError(
 *         ({ message }) => new Sink.SinkUnavailable({ sink: "http", reason: "unreachable", message })
 *       )
 *     )
 * })
 *
 * @since 0.1.0
 * @category constructors
 */
export const fromAppend = (options: {
  readonly name: string
  /** How many keys of a batch are published at a time. Default 16. */
  readonly concurrency?: number | undefined
  readonly append: (event: OutboundEvent) => Effect.Effect<Published, EventRejected | EventFailed | SinkUnavailable>
}): Sink["Type"] => ({
  name: options.name,
  inert: false,
  publish: (batch) =>
    Effect.gen(function* () {
      const outcomes: Array<Outcome> = batch.events.map(() => notAttempted)
      let unavailable: SinkUnavailable | undefined

      const appendAt = Effect.fnUntraced(function* (index: number, event: OutboundEvent) {
        if (unavailable !== undefined) return false
        if ((yield* Clock.currentTimeMillis) >= batch.deadline) {
          unavailable = new SinkUnavailable({
            sink: options.name,
            reason: "timeout",
            message: "The deadline has passed"
          })
          return false
        }
        const outcome = yield* Effect.merge(options.append(event))
        if (outcome._tag === "SinkUnavailable") {
          unavailable = outcome
          return false
        }
        outcomes[index] = outcome
        return outcome._tag === "Published"
      })
      const appendKey = Effect.fnUntraced(function* (key: ReadonlyArray<readonly [number, OutboundEvent]>) {
        for (const [index, event] of key) {
          if (!(yield* appendAt(index, event))) return
        }
      })

      yield* Effect.forEach(byKey(batch.events), appendKey, { concurrency: options.concurrency ?? 16, discard: true })
      if (unavailable === undefined) return outcomes
      if (outcomes.every((outcome) => outcome._tag === "NotAttempted")) return yield* unavailable
      yield* Effect.logWarning("A batch was published in part", unavailable)
      return outcomes
    })
})

/**
 * The events of a batch by ordering key, each with its index in the batch.
 *
 * @since 0.1.0
 * @category combinators
 */
export const byKey = (
  events: ReadonlyArray<OutboundEvent>
): ReadonlyArray<ReadonlyArray<readonly [index: number, event: OutboundEvent]>> => {
  const keys = new Map<string, Array<readonly [number, OutboundEvent]>>()
  events.forEach((event, index) => {
    const key = keys.get(event.orderingKey)
    if (key === undefined) keys.set(event.orderingKey, [[index, event]])
    else key.push([index, event])
  })
  return Array.from(keys.values())
}

/**
 * A sink of nothing. A pump with it does nothing, as if there were none.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerNop: Layer.Layer<Sink> = Layer.sync(Sink, () => {
  let version = 0
  return {
    name: "nop",
    inert: true,
    publish: (batch) => Effect.sync(() => batch.events.map(() => published(++version as ControlVersion)))
  }
})
