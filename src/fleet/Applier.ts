/**
 * The applier reads the feed and applies every event to a node, exactly once and in the order of the feed.
 *
 * Nothing ends an applier but interruption, and that finishes the events in hand first. An event that cannot be applied
 * halts it: what comes after waits, and the event is tried again, until it can or somebody mends what is wrong.
 *
 * @since 1.0.0
 */
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Mailbox from "effect/Mailbox"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as ControlEvent from "../ControlEvent.js"
import * as EventId from "../EventId.js"
import * as Traceparent from "../internal/traceparent.js"
import * as ApplierMetrics from "./ApplierMetrics.js"
import {
  AppliedEvents,
  retention as defaultRetention,
  type AppliedEventsError,
  type Cursor,
  type Delivery
} from "./AppliedEvents.js"
import { ArtifactStore, type ArtifactError } from "./ArtifactStore.js"
import type { CannotApply, HandleError, Handlers } from "./Handlers.js"
import { beyond, Source, SourceError, type FeedEvent, type Position } from "./Source.js"

/**
 * @since 1.0.0
 * @category models
 */
export class Applier extends Context.Tag("controlpublish/Applier")<
  Applier,
  {
    /**
     * Applies everything that is in the feed when this begins, and reports what it did. Does nothing while the applier
     * is paused. This is how tests drive an applier without a clock.
     */
    readonly drain: Effect.Effect<ApplyReport, ApplierError>
    /** Applies nothing from now on. Returns when no event is in hand. */
    readonly pause: Effect.Effect<void>
    /** Ends a pause. */
    readonly resume: Effect.Effect<void>
    readonly status: Effect.Effect<ApplierStatus>
    /** The status now and whenever it changes. A slow reader misses what lies between. */
    readonly changes: Stream.Stream<ApplierStatus>
  }
>() {}

/**
 * Why an applier does not go on.
 *
 * @since 1.0.0
 * @category errors
 */
export type ApplierError = SourceError | AppliedEventsError | ArtifactError | HandleError

/**
 * @since 1.0.0
 * @category models
 */
export interface ApplyReport {
  readonly applied: number
  /** Deliveries of events that were applied before. */
  readonly skipped: number
  readonly setAside: number
}

/**
 * `inert`: the source is `nop`, there is nothing to do · `applying`: at work · `idle`: everything in the feed is applied
 * · `halted`: an event cannot be applied, and is tried again · `unavailable`: the feed or the node's database cannot be
 * used · `paused` · `stopping`: finishing the events in hand · `stopped`.
 *
 * @since 1.0.0
 * @category models
 */
export type ApplierState = "inert" | "applying" | "idle" | "halted" | "unavailable" | "paused" | "stopping" | "stopped"

/**
 * Counts are since the applier's start, instants milliseconds since the epoch.
 *
 * @since 1.0.0
 * @category models
 */
export interface ApplierStatus extends ApplyReport {
  readonly state: ApplierState
  /** When the applier entered the state. */
  readonly since: number
  /** The source's name. */
  readonly source: string
  readonly position: Position
  /** The newest version that is known to be in the feed. */
  readonly newest: Position
  /** Passes that ended in an error. */
  readonly failures: number
  readonly lastError?: {
    readonly at: number
    readonly message: string
    /** The event that could not be applied, where it was one. */
    readonly version?: number
  }
}

/**
 * @since 1.0.0
 * @category models
 */
export interface Options {
  /**
   * What becomes of an event that can never be applied: one that breaks the contract, or of which its handler says so
   * with `CannotApply`. `halt`: everything after it waits until somebody mends it. `setAside`: it is marked with the
   * reason, and the applier goes on. Default `halt`.
   */
  readonly cannotApply?: "halt" | "setAside" | undefined
  /**
   * When a pass is tried again, one step a failure in a row. Where it ends, the applier tries every 30 seconds. Default
   * {@link defaultRetry}.
   */
  readonly retry?: Schedule.Schedule<unknown> | undefined
  /**
   * How many events are applied in one transaction at most, where so many are there and it takes no longer than 200 ms.
   * Where one of them fails, nothing of them is kept, and they are applied again with a transaction each: a handler that
   * does something outside of the transaction does it again. 1 for a transaction each. Default 100.
   */
  readonly batchSize?: number | undefined
  /** How long a stop waits for the events in hand. Default 15 seconds. */
  readonly drainTimeout?: Duration.DurationInput | undefined
  /**
   * Which marks are kept: those at most so many control versions behind the cursor, and those that are younger. The rest
   * is removed at the start and every hour. Default `AppliedEvents.retention`.
   */
  readonly retention?: { readonly keep: number; readonly olderThan: Duration.DurationInput } | "forever" | undefined
}

/**
 * From 100 ms, doubled up to 10 s, jittered by a fifth each way.
 *
 * @since 1.0.0
 * @category schedules
 */
export const defaultRetry: Schedule.Schedule<unknown> = Schedule.exponential("100 millis").pipe(
  Schedule.union(Schedule.spaced("10 seconds")),
  Schedule.jittered
)

/** Marks that one statement removes. */
const pruneSize = 10_000

const nothing: ApplyReport = { applied: 0, skipped: 0, setAside: 0 }

const initialStatus = (source: Source["Type"], state: ApplierState): Effect.Effect<ApplierStatus> =>
  Effect.map(Clock.currentTimeMillis, (since) => ({
    state,
    since,
    source: source.name,
    position: 0,
    newest: 0,
    failures: 0,
    ...nothing
  }))

const makeInert = (source: Source["Type"]): Effect.Effect<Applier["Type"]> =>
  Effect.map(initialStatus(source, "inert"), (status) => ({
    drain: Effect.succeed(nothing),
    pause: Effect.void,
    resume: Effect.void,
    status: Effect.succeed(status),
    changes: Stream.make(status)
  }))

/** What became of one event. */
type Outcome = keyof ApplyReport

const add = ({ applied, setAside, skipped }: ApplyReport, outcomes: ReadonlyArray<Outcome>): ApplyReport => {
  const report = { applied, skipped, setAside }
  for (const outcome of outcomes) report[outcome]++
  return report
}

/** Artifacts that are in memory at the same time take at most so many bytes, and one artifact more. */
const maxBytes = 8 * 1024 * 1024

/**
 * How many events the next transaction takes: twice as many where that will not take longer than 200 ms, half as many
 * where it did, so that slow handlers have a transaction for each event and hold their locks no longer than that.
 */
const sizeAfter = (took: number, size: number, largest: number): number => {
  if (took > 200) return Math.max(size >> 1, 1)
  return took <= 100 ? Math.min(size * 2, largest) : size
}

/** Why a pass ended, and at which event where it was one. */
class Halt {
  readonly event: FeedEvent | undefined
  readonly error: ApplierError
  constructor(event: FeedEvent | undefined, error: ApplierError) {
    this.event = event
    this.error = error
  }
}

const isUnavailable = (error: unknown): boolean =>
  typeof error === "object" &&
  error !== null &&
  "_tag" in error &&
  (error._tag === "SourceError" || error._tag === "AppliedEventsError")

const makeStatus = (source: Source["Type"]) =>
  Effect.gen(function* () {
    const ref = yield* SubscriptionRef.make(yield* initialStatus(source, "idle"))
    const update = (change: (status: ApplierStatus) => Partial<ApplierStatus>) =>
      SubscriptionRef.update(ref, (status) => ({ ...status, ...change(status) }))
    const enter = (state: ApplierState) =>
      Effect.flatMap(SubscriptionRef.get(ref), (status) =>
        status.state === state
          ? Effect.void
          : Effect.flatMap(Clock.currentTimeMillis, (since) => update(() => ({ state, since })))
      )
    let told: string | undefined
    const settled = (version: Position, outcomes: ReadonlyArray<Outcome>) =>
      Effect.gen(function* () {
        told = undefined
        const now = yield* Clock.currentTimeMillis
        yield* update((status) => {
          const newest = Math.max(status.newest, version)
          const position = Math.max(status.position, version)
          const state = status.state === "stopping" ? status.state : position < newest ? "applying" : "idle"
          return {
            newest,
            position,
            state,
            since: state === status.state ? status.since : now,
            ...add(status, outcomes)
          }
        })
        const counts = add(nothing, outcomes)
        yield* Metric.incrementBy(ApplierMetrics.applied, counts.applied)
        yield* Metric.incrementBy(ApplierMetrics.skipped, counts.skipped)
        yield* Metric.incrementBy(ApplierMetrics.setAside, counts.setAside)
        yield* Metric.set(ApplierMetrics.position, version)
      })
    const failed = (cause: Cause.Cause<Halt | ApplierError>) =>
      Effect.gen(function* () {
        const at = yield* Clock.currentTimeMillis
        const squashed = Cause.squash(cause)
        const halt = squashed instanceof Halt ? squashed : undefined
        const error = halt === undefined ? squashed : halt.error
        const state = isUnavailable(error) ? "unavailable" : "halted"
        const message = error instanceof Error ? error.message : String(error)
        const event = halt?.event
        const version = event === undefined ? {} : { version: event.version }
        yield* update(({ failures }) => ({ failures: failures + 1, lastError: { at, message, ...version } }))
        yield* Metric.increment(ApplierMetrics.failures)
        const which =
          event === undefined ? "" : ` Event ${event.version} cannot be applied, and what comes after waits.`
        // Said once, and in full; its retries are said at debug level.
        const isKnown = told === message
        told = message
        yield* isKnown
          ? Effect.logDebug(`The applier still does not go on: ${message}`)
          : Effect.logWarning(
              `The applier does not go on.${which} ${message}`,
              halt === undefined ? cause : Cause.fail(error)
            )
        yield* enter(state)
      })
    return { ref, update, enter, settled, failed }
  })

/** Continues the trace of the append, where somebody traces. */
const traced =
  (source: string, { traceparent, version }: FeedEvent, eventId: string) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.flatMap(Traceparent.isTraced, (isTraced) => {
      if (!isTraced) return effect
      const parent = traceparent === undefined ? Option.none() : Traceparent.decode(traceparent)
      return Effect.withSpan(effect, "Applier.apply", {
        ...Option.match(parent, { onNone: () => ({ root: true }), onSome: (parent) => ({ parent }) }),
        kind: "consumer",
        captureStackTrace: false,
        attributes: {
          "controlpublish.event_id": eventId,
          "controlpublish.control_version": version,
          "controlpublish.source": source
        }
      })
    })

type Requirements = Source | AppliedEvents | ArtifactStore

const replaced = (source: string, { feed, position }: Cursor, found: string) =>
  new SourceError({
    source,
    reason: "replaced",
    message: `This node has applied up to control version ${position} of the feed ${feed}, and this is ${found}: its versions begin again. Start anew from a snapshot, or from 0 where the feed holds everything`
  })

const makeWith = <R>(
  handlers: Handlers<R>,
  options: Options,
  how: {
    /** Whether the applier runs by itself, or only when it is drained. */
    readonly scheduled: boolean
  }
): Effect.Effect<Applier["Type"], never, Requirements | R | Scope.Scope> =>
  Effect.gen(function* () {
    const source = yield* Source
    if (source.inert) return yield* makeInert(source)

    const applied = yield* AppliedEvents
    const artifacts = yield* ArtifactStore
    const {
      batchSize = 100,
      cannotApply = "halt",
      drainTimeout = "15 seconds",
      retention = defaultRetention,
      retry = defaultRetry
    } = options
    const status = yield* makeStatus(source)
    const running = yield* Effect.makeLatch(true)
    const pausing = yield* Effect.makeLatch(false)
    const onePass = yield* Effect.makeSemaphore(1)
    const retries = yield* Schedule.driver(Schedule.andThen(retry, Schedule.spaced("30 seconds")))
    let paused = false
    let stopping = false
    let failing = false

    yield* Effect.addFinalizer(() => status.enter("stopped"))
    const largest = applied.isTransactional ? Math.max(Math.trunc(batchSize), 1) : 1
    // The events in hand outlive the fiber that asks for them.
    const inHand = yield* FiberSet.make<ReadonlyArray<Outcome>, Halt>()
    const runInHand = yield* FiberSet.runtime(inHand)<R>()
    const annotated = Effect.annotateLogs({ package: "controlpublish", module: "Applier", source: source.name })

    const decode = ({ text, version }: FeedEvent) =>
      ControlEvent.parse(text).pipe(
        Either.flatMap((value) =>
          ControlEvent.validatePublished(
            typeof value === "object" && value !== null && !Array.isArray(value)
              ? { ...value, control_version: version }
              : value
          )
        )
      )

    /** What has to be done in the transaction, with everything that can be done before it opens. */
    const prepare = (delivered: FeedEvent, feed: string) =>
      Effect.gen(function* () {
        const event = yield* decode(delivered)
        const { artifact_ref, checksum, event_id: eventId } = event
        const artifact =
          artifact_ref === undefined || checksum === undefined
            ? undefined
            : yield* artifacts.get({ artifact_ref, checksum }).pipe(
                // That of an event that is applied may be gone by now.
                Effect.catchAll((error) =>
                  Effect.flatMap(applied.isApplied(eventId), (isApplied) => (isApplied ? Effect.void : error))
                )
              )
        const delivery: Delivery = { eventId, version: delivered.version, feed }
        const handled = traced(
          source.name,
          delivered,
          eventId
        )(handlers.handle({ event, artifact: artifact ?? undefined }))
        return { delivery, handled, bytes: artifact?.length ?? 0 }
      })

    const applyOne = (delivered: FeedEvent, feed: string): Effect.Effect<Outcome, ApplierError, R> => {
      const aside = (
        eventId: string | undefined,
        error: CannotApply | ControlEvent.InvalidEvent
      ): Effect.Effect<Outcome, ApplierError> =>
        // Without an id there is nothing to mark.
        cannotApply === "halt" || eventId === undefined || !EventId.isEventId(eventId)
          ? Effect.fail(error)
          : Effect.zipRight(
              Effect.logWarning(`Event ${delivered.version} is set aside: it can never be applied here`),
              applied.setAside({ eventId, version: delivered.version, feed }, error.message)
            )
      return prepare(delivered, feed).pipe(
        Effect.flatMap(({ delivery, handled }) =>
          applied
            .applyOnce(delivery, handled)
            .pipe(Effect.catchTag("CannotApply", (error) => aside(delivery.eventId, error)))
        ),
        Effect.catchTag("InvalidEvent", (error) => aside(error.eventId, error))
      )
    }

    const settle = (events: ReadonlyArray<FeedEvent>, outcomes: ReadonlyArray<Outcome>) =>
      Effect.gen(function* () {
        const { version } = events[outcomes.length - 1]!
        failing = false
        yield* status.settled(version, outcomes)
        yield* Effect.mapError(source.acknowledge(version), (error) => new Halt(undefined, error))
        return outcomes
      })

    /** Applies the first of the events in one transaction, as many as it can, and answers what became of them. */
    const applySome = (
      events: ReadonlyArray<FeedEvent>,
      feed: string
    ): Effect.Effect<ReadonlyArray<Outcome>, Halt, R> =>
      Effect.gen(function* () {
        const ready: Array<readonly [Delivery, Effect.Effect<void, HandleError, R>]> = []
        for (let bytes = 0; events.length > 1 && ready.length < events.length && bytes < maxBytes;) {
          const prepared = yield* Effect.either(prepare(events[ready.length]!, feed))
          if (Either.isLeft(prepared)) break
          ready.push([prepared.right.delivery, prepared.right.handled])
          bytes += prepared.right.bytes
        }
        if (ready.length > 1) {
          const together = yield* Effect.either(applied.applyAll(ready))
          if (Either.isRight(together)) return yield* settle(events, together.right)
          const error = together.left
          if (error._tag === "AppliedEventsError" && error.retryable)
            return yield* Effect.fail(new Halt(undefined, error))
        }
        // Alone it is seen which one it is, and nothing before it waits.
        const alone = events.slice(0, Math.max(ready.length, 1))
        return yield* Effect.forEach(alone, (event) =>
          applyOne(event, feed).pipe(
            Effect.mapError((error) => new Halt(event, error)),
            Effect.flatMap((outcome) => settle([event], [outcome]))
          )
        ).pipe(Effect.map((outcomes) => outcomes.flat()))
      }).pipe(Effect.interruptible, annotated)

    const applyInHand = (events: ReadonlyArray<FeedEvent>, feed: string) =>
      Effect.flatten(Fiber.await(runInHand(applySome(events, feed))))

    const halted = () => paused || stopping

    /** Applies the events after the cursor, up to a version or without end. */
    const pass = (until: (newest: Position) => Position) =>
      Effect.gen(function* () {
        const cursor = yield* applied.cursor
        const feed = yield* source.look
        if (cursor.feed !== "" && cursor.feed !== feed.identity) {
          return yield* replaced(source.name, cursor, feed.identity)
        }
        if (feed.newest < cursor.position) return yield* beyond(source.name, cursor.position, feed.newest)
        yield* status.update(() => ({ position: cursor.position, newest: feed.newest }))
        const last = until(feed.newest)
        if (cursor.position >= last) return nothing
        // What halted is no less halted while it is tried again.
        if (cursor.position === feed.newest) yield* status.enter("idle")
        else if (!failing) yield* status.enter("applying")
        let report = nothing
        let size = 1
        // Read on while events are applied, so that what has arrived meanwhile can share a transaction.
        const arriving = yield* source.events(cursor.position).pipe(
          Stream.takeUntil(({ version }) => version >= last),
          Mailbox.fromStream({ capacity: largest })
        )
        for (let ended = false; !ended && !halted();) {
          const [arrived, isLast] = yield* arriving.takeAll
          let rest = Chunk.toReadonlyArray(arrived)
          while (rest.length > 0 && !halted()) {
            const from = yield* Clock.currentTimeMillis
            const outcomes = yield* applyInHand(rest.slice(0, size), feed.identity)
            report = add(report, outcomes)
            rest = rest.slice(outcomes.length)
            size = sizeAfter((yield* Clock.currentTimeMillis) - from, size, largest)
          }
          ended = isLast
        }
        return report
      }).pipe(Effect.scoped, onePass.withPermits(1))

    const step = Effect.gen(function* () {
      if (paused) {
        yield* status.enter("paused")
        return yield* running.await
      }
      yield* Effect.raceFirst(
        pass(() => Infinity),
        pausing.await
      )
    })

    const backOff = (cause: Cause.Cause<Halt | ApplierError>) =>
      Effect.gen(function* () {
        yield* status.failed(cause)
        // What was applied since the last failure begins the schedule anew.
        if (!failing) yield* retries.reset
        failing = true
        yield* Effect.raceFirst(Effect.ignore(retries.next(cause)), pausing.await)
      })

    const loop = step.pipe(Effect.sandbox, Effect.catchAll(backOff), Effect.forever, annotated)
    const prune =
      retention === "forever"
        ? Effect.void
        : applied.prune({ ...retention, limit: pruneSize }).pipe(
            Effect.repeat({ while: (pruned) => pruned === pruneSize }),
            Effect.catchAll((error) => Effect.logWarning(`Marks were not pruned. ${error.message}`)),
            Effect.repeat(Schedule.spaced("1 hour")),
            annotated
          )
    if (how.scheduled) yield* Effect.forkScoped(Effect.interruptible(prune))

    // Not in the scope, which would wait for it without a deadline: the finalizer sees to it.
    const looping = how.scheduled ? yield* Effect.forkDaemon(Effect.interruptible(loop)) : Fiber.void
    yield* Effect.addFinalizer(() =>
      Effect.gen(function* () {
        stopping = true
        yield* status.enter("stopping")
        yield* Effect.zip(Fiber.interrupt(looping), FiberSet.awaitEmpty(inHand), { concurrent: true })
      }).pipe(Effect.interruptible, Effect.timeoutOption(drainTimeout))
    )

    return {
      drain: Effect.suspend(() => (halted() ? Effect.succeed(nothing) : pass((newest) => newest))).pipe(
        Effect.mapError((error) => (error instanceof Halt ? error.error : error))
      ),
      pause: Effect.gen(function* () {
        paused = true
        yield* running.close
        yield* pausing.open
        yield* FiberSet.awaitEmpty(inHand)
        if (halted()) yield* status.enter("paused")
      }),
      resume: Effect.gen(function* () {
        paused = false
        yield* pausing.close
        yield* running.open
      }),
      status: SubscriptionRef.get(status.ref),
      changes: status.ref.changes
    }
  })

/**
 * Starts an applier in the scope. Closing the scope begins no other event, waits at most the drain timeout for the one
 * in hand, and interrupts what is left; nothing of it is kept then, and it comes again.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = <R>(
  handlers: Handlers<R>,
  options: Options = {}
): Effect.Effect<Applier["Type"], never, Requirements | R | Scope.Scope> =>
  makeWith(handlers, options, { scheduled: true })

/**
 * An applier that runs as long as the layer.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer = <R>(handlers: Handlers<R>, options: Options = {}): Layer.Layer<Applier, never, Requirements | R> =>
  Layer.scoped(Applier, make(handlers, options))

/**
 * An applier that runs only when it is drained. For tests, and for programs that apply on demand.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerManual = <R>(
  handlers: Handlers<R>,
  options: Options = {}
): Layer.Layer<Applier, never, Requirements | R> =>
  Layer.scoped(Applier, makeWith(handlers, options, { scheduled: false }))
