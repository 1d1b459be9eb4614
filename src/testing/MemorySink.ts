/**
 * A sink in memory, for tests, that fails as scripted.
 *
 * It keeps a sink's promises even while it fails: order per key, nothing of a key after its failure, the first version
 * for an id that is in the feed. Without a script it publishes a batch in one step.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { ControlEvent } from "../ControlEvent.js"
import type { ControlVersion } from "../ControlVersion.js"
import type { FeedBound } from "../FeedBound.js"
import type { EventId } from "../EventId.js"
import type { OrderingKey } from "../OrderingKey.js"
import {
  EventFailed,
  EventRejected,
  notAttempted,
  published,
  Sink,
  SinkUnavailable,
  type Batch,
  type OutboundEvent,
  type Outcome
} from "../Sink.js"

/**
 * What tests can see and do beyond the sink.
 *
 * @example
 * import { Effect } from "effect"
 * import { MemorySink } from "controlpublish/testing"
 *
 * export const outage = Effect.gen(function* () {
 *   const sink = yield* MemorySink.MemorySink
 *   yield* sink.script(MemorySink.unavailable, MemorySink.stopAfter(2), MemorySink.loseAnswer)
 *   yield* sink.failEvent("e1", { times: 2 })
 *   // … let a pump publish, then look:
 *   return yield* sink.feed
 * })
 *
 * @since 0.1.0
 * @category models
 */
export class MemorySink extends Context.Tag("controlpublish/testing/MemorySink")<
  MemorySink,
  {
    /** What was published, each event once, in the order of the versions: 1, 2, 3, … */
    readonly feed: Effect.Effect<ReadonlyArray<FeedEntry>>
    /** The batches that the sink was given, published or not. */
    readonly calls: Effect.Effect<ReadonlyArray<Batch>>
    /** Adds steps for the next publish calls. Each call consumes one step; without steps it publishes. */
    readonly script: (...steps: ReadonlyArray<Step>) => Effect.Effect<void>
    /**
     * Makes the sink available or not. While it is not, every call fails with `SinkUnavailable` and consumes no step.
     */
    readonly setAvailable: (available: boolean) => Effect.Effect<void>
    /** Sets what the sink says of the limits of its feed. */
    readonly setBounds: (bounds: ReadonlyArray<FeedBound>) => Effect.Effect<void>
    /** Answers `EventFailed` for the event. */
    readonly failEvent: OnEvent
    /** Answers `EventRejected` for the event. */
    readonly rejectEvent: OnEvent
    /** Dies at the event. The events before it in the batch are then in the feed. */
    readonly dieOnEvent: OnEvent
    /** Removes every script and makes the sink available. The feed stays. */
    readonly reset: Effect.Effect<void>
  }
>() {}

/**
 * Makes the sink react to an event, the next `times` attempts (default: always). A later call for the same event
 * replaces this, and `times: 0` ends it.
 *
 * @since 0.1.0
 * @category models
 */
export type OnEvent = (eventId: string, options?: { readonly times?: number }) => Effect.Effect<void>

/**
 * A published event.
 *
 * @since 0.1.0
 * @category models
 */
export interface FeedEntry {
  readonly version: ControlVersion
  readonly eventId: EventId
  readonly orderingKey: OrderingKey
  readonly event: ControlEvent
  /** The payload as the sink got it, without the version. */
  readonly payload: string
}

/**
 * What a sink does.
 *
 * @since 0.1.0
 * @category scripting
 */
export type Publish = Sink["Type"]["publish"]

/**
 * One publish call: gets the batch, and the function that publishes it.
 *
 * @since 0.1.0
 * @category scripting
 */
export type Step = (batch: Batch, publish: Publish) => ReturnType<Publish>

const unavailability = (message: string, reason: SinkUnavailable["reason"] = "unreachable") =>
  new SinkUnavailable({ sink: "memory", reason, message: `The memory sink ${message}` })

/**
 * Publishes as without a script.
 *
 * @since 0.1.0
 * @category scripting
 */
export const proceed: Step = (batch, publish) => publish(batch)

/**
 * Publishes nothing and fails with `SinkUnavailable`.
 *
 * @since 0.1.0
 * @category scripting
 */
export const unavailable: Step = () => unavailability("was told to be unavailable")

/**
 * Becomes unavailable after `count` events: the others are `NotAttempted`.
 *
 * @since 0.1.0
 * @category scripting
 */
export const stopAfter =
  (count: number): Step =>
  (batch, publish) => {
    const [first, ...rest] = batch.events.slice(0, count)
    return first === undefined
      ? unavailability("was told to be unavailable")
      : Effect.map(publish({ ...batch, events: [first, ...rest] }), (outcomes) => [
          ...outcomes,
          ...batch.events.slice(outcomes.length).map(() => notAttempted)
        ])
  }

/**
 * Publishes, and then fails with `SinkUnavailable` instead of answering.
 *
 * @since 0.1.0
 * @category scripting
 */
export const loseAnswer: Step = (batch, publish) =>
  Effect.zipRight(publish(batch), unavailability("was told to lose its answer", "timeout"))

/**
 * Publishes nothing and dies.
 *
 * @since 0.1.0
 * @category scripting
 */
export const die: Step = () => Effect.die(new Error("The memory sink was told to die"))

/**
 * Runs an effect before it publishes, for example to wait for a latch or to tell the test that a publish has begun.
 *
 * @since 0.1.0
 * @category scripting
 */
export const after =
  (effect: Effect.Effect<unknown>): Step =>
  (batch, publish) =>
    Effect.zipRight(effect, publish(batch))

/**
 * Provides a sink in memory with options.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerWith = (options: {
  /**
   * Whether `feed` and `calls` keep every event. If not, they stay empty and only ids and versions take memory. Default
   * `true`.
   */
  readonly keepFeed?: boolean | undefined
}): Layer.Layer<Sink | MemorySink> =>
  Layer.effectContext(
    Effect.sync(() => {
      const { memory, sink } = make(options.keepFeed ?? true)
      return Context.make(Sink, sink).pipe(Context.add(MemorySink, memory))
    })
  )

/**
 * Provides a sink in memory, with an empty feed each time the layer is built.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<Sink | MemorySink> = layerWith({})

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

interface Rule {
  readonly reaction: "fail" | "reject" | "die"
  times: number
}

const make = (keepFeed: boolean): { readonly sink: Sink["Type"]; readonly memory: MemorySink["Type"] } => {
  const versions = new Map<EventId, ControlVersion>()
  const feed: Array<FeedEntry> = []
  const calls: Array<Batch> = []
  const rules = new Map<string, Rule>()
  let steps: Array<Step> = []
  let available = true
  let bounds: ReadonlyArray<FeedBound> = []

  const append = ({ event, eventId, orderingKey, payload }: OutboundEvent): Outcome => {
    const known = versions.get(eventId)
    if (known !== undefined) return published(known, true)
    const version = (versions.size + 1) as ControlVersion
    versions.set(eventId, version)
    if (keepFeed) feed.push({ version, eventId, orderingKey, event, payload })
    return published(version)
  }

  /** The outcome of the event's rule, `undefined` if it has none. Throws if the rule is a defect. */
  const ruled = ({ eventId }: OutboundEvent): Outcome | undefined => {
    const rule = rules.get(eventId)
    if (rule === undefined || rule.times <= 0) return undefined
    rule.times--
    const message = `The memory sink was told to ${rule.reaction} on this event`
    switch (rule.reaction) {
      case "fail":
        return new EventFailed({ eventId, message })
      case "reject":
        return new EventRejected({ eventId, message })
      case "die":
        throw new Error(message)
    }
  }

  const appendRuled = (events: ReadonlyArray<OutboundEvent>): ReadonlyArray<Outcome> => {
    const stopped = new Set<OrderingKey>()
    return events.map((event) => {
      if (stopped.has(event.orderingKey)) return notAttempted
      const outcome = ruled(event) ?? append(event)
      if (outcome._tag !== "Published") stopped.add(event.orderingKey)
      return outcome
    })
  }

  const publish: Publish = ({ deadline, events }) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      if (now >= deadline) return unavailability("got the batch after its deadline", "timeout")
      return Effect.succeed(rules.size === 0 ? events.map(append) : appendRuled(events))
    })

  const onEvent =
    (reaction: Rule["reaction"]): OnEvent =>
    (eventId, { times = Infinity } = {}) =>
      Effect.sync(() => rules.set(eventId, { reaction, times }))

  return {
    sink: {
      name: "memory",
      inert: false,
      bounds: Effect.sync(() => bounds),
      publish: (batch) =>
        Effect.suspend(() => {
          if (keepFeed) calls.push(batch)
          if (!available) return unavailability("was told to be unavailable")
          const step = steps.shift()
          return step === undefined ? publish(batch) : step(batch, publish)
        })
    },
    memory: {
      feed: Effect.sync(() => feed.slice()),
      calls: Effect.sync(() => calls.slice()),
      script: (...more) => Effect.sync(() => steps.push(...more)),
      setAvailable: (value) => Effect.sync(() => (available = value)),
      setBounds: (value) => Effect.sync(() => (bounds = value)),
      failEvent: onEvent("fail"),
      rejectEvent: onEvent("reject"),
      dieOnEvent: onEvent("die"),
      reset: Effect.sync(() => {
        steps = []
        rules.clear()
        available = true
      })
    }
  }
}
