/**
 * The applier reads the feed and applies every event to a node, exactly once and in the order of the feed.
 *
 * Nothing ends an applier but interruption, and that finishes the event in hand first. An event that cannot be applied
 * halts it: what comes after waits, and the event is tried again, until it can or somebody mends what is wrong.
 *
 * @since 1.0.0
 */
import * as Headers from "@effect/platform/Headers"
import * as HttpTraceContext from "@effect/platform/HttpTraceContext"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as ControlEvent from "../ControlEvent.js"
import * as EventId from "../EventId.js"
import * as ApplierMetrics from "./ApplierMetrics.js"
import { AppliedEvents, retention as defaultRetention, type AppliedEventsError, type Cursor } from "./AppliedEvents.js"
import { ArtifactStore, type ArtifactError } from "./ArtifactStore.js"
import type { HandleError, Handlers } from "./Handlers.js"
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
 * used · `paused` · `stopping`: finishing the event in hand · `stopped`.
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
  /** How long a stop waits for the event in hand. Default 15 seconds. */
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

/** An event that could not be applied. */
class Halt {
  readonly event: FeedEvent
  readonly error: ApplierError
  constructor(event: FeedEvent, error: ApplierError) {
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
    const settled = ({ version }: FeedEvent, outcome: Outcome) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) =>
        update((status) => {
          const newest = Math.max(status.newest, version)
          const position = Math.max(status.position, version)
          const state = status.state === "stopping" ? status.state : position < newest ? "applying" : "idle"
          return {
            newest,
            position,
            state,
            since: state === status.state ? status.since : now,
            [outcome]: status[outcome] + 1
          }
        })
      ).pipe(
        Effect.zipRight(Metric.increment(ApplierMetrics[outcome])),
        Effect.zipRight(Metric.set(ApplierMetrics.position, version))
      )
    const failed = (cause: Cause.Cause<Halt | ApplierError>) =>
      Effect.gen(function* () {
        const at = yield* Clock.currentTimeMillis
        const before = yield* SubscriptionRef.get(ref)
        const squashed = Cause.squash(cause)
        const halt = squashed instanceof Halt ? squashed : undefined
        const error = halt === undefined ? squashed : halt.error
        const state = isUnavailable(error) ? "unavailable" : "halted"
        const message = error instanceof Error ? error.message : String(error)
        const version = halt === undefined ? {} : { version: halt.event.version }
        yield* update(({ failures }) => ({ failures: failures + 1, lastError: { at, message, ...version } }))
        yield* Metric.increment(ApplierMetrics.failures)
        const which =
          halt === undefined ? "" : ` Event ${halt.event.version} cannot be applied, and what comes after waits.`
        // Said once, and in full; its retries are said at debug level.
        yield* before.state === state && before.lastError?.message === message
          ? Effect.logDebug(`The applier still does not go on: ${message}`)
          : Effect.logWarning(
              `The applier does not go on.${which} ${message}`,
              halt === undefined ? cause : Cause.fail(error)
            )
        yield* enter(state)
      })
    return { ref, update, enter, settled, failed }
  })

/** Continues the trace of the append. */
const traced =
  ({ traceparent, version }: FeedEvent) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    traceparent === undefined
      ? effect
      : Effect.withSpan(effect, "Applier.apply", {
          parent: Option.getOrUndefined(HttpTraceContext.w3c(Headers.unsafeFromRecord({ traceparent }))),
          attributes: { control_version: version },
          captureStackTrace: false
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
    // The event in hand outlives the fiber that asks for it.
    const inHand = yield* FiberSet.make<Outcome, ApplierError>()
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

    const apply = (delivered: FeedEvent, feed: string): Effect.Effect<Outcome, ApplierError, R> =>
      Effect.gen(function* () {
        const { version } = delivered
        const decoded = decode(delivered)
        if (Either.isLeft(decoded)) {
          const { eventId } = decoded.left
          // Without an id there is nothing to mark.
          if (cannotApply === "halt" || eventId === undefined || !EventId.isEventId(eventId)) return yield* decoded.left
          return yield* applied.setAside({ eventId, version, feed }, decoded.left.message)
        }
        const event = decoded.right
        const { artifact_ref, checksum, event_id: eventId } = event
        const delivery = { eventId, version, feed }
        // Fetched before the transaction, and not for what is applied: its artifact may be gone by now.
        const artifact =
          artifact_ref === undefined || checksum === undefined || (yield* applied.isApplied(eventId))
            ? undefined
            : yield* artifacts.get({ artifact_ref, checksum })
        const handled = applied.applyOnce(delivery, handlers.handle({ event, artifact }))
        if (cannotApply === "halt") return yield* handled
        return yield* handled.pipe(
          Effect.catchIf(
            (error) => error._tag === "CannotApply" || error._tag === "InvalidEvent",
            (error) => applied.setAside(delivery, error.message)
          )
        )
      }).pipe(
        Effect.tap((outcome) => status.settled(delivered, outcome)),
        Effect.tap((outcome) =>
          outcome === "setAside"
            ? Effect.logWarning(`Event ${delivered.version} was set aside: it can never be applied here`)
            : Effect.void
        ),
        Effect.zipLeft(source.acknowledge(delivered.version)),
        Effect.interruptible,
        traced(delivered),
        annotated
      )

    const applyInHand = (event: FeedEvent, feed: string): Effect.Effect<Outcome, Halt> =>
      Effect.flatMap(Fiber.await(runInHand(apply(event, feed))), (exit) =>
        Exit.mapErrorCause(exit, (cause) => Cause.map(cause, (error) => new Halt(event, error)))
      )

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
        yield* status.enter(cursor.position < feed.newest ? "applying" : "idle")
        const report = { ...nothing } as { -readonly [Name in keyof ApplyReport]: number }
        yield* source.events(cursor.position).pipe(
          Stream.takeUntil(({ version }) => version >= last),
          Stream.runForEachWhile((event) =>
            halted()
              ? Effect.succeed(false)
              : Effect.map(applyInHand(event, feed.identity), (outcome) => {
                  report[outcome]++
                  failing = false
                  return true
                })
          )
        )
        return report
      }).pipe(onePass.withPermits(1))

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
