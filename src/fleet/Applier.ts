/**
 * The applier reads the feed and applies every event to a node, exactly once and in the order of the feed.
 *
 * Nothing ends an applier but interruption, and that finishes the events in hand first. An event that cannot be applied
 * halts it: what comes after waits, and the event is tried again, until it can or somebody mends what is wrong.
 *
 * @since 1.0.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Worker from "../internal/worker.js"
import { AppliedEvents, retention as defaultRetention } from "./AppliedEvents.js"
import type { ApplierStatus, ApplyReport } from "./ApplierStatus.js"
import { ArtifactStore } from "./ArtifactStore.js"
import type { Handlers } from "./Handlers.js"
import * as Pass from "./internal/applierPass.js"
import * as Status from "./internal/applierStatus.js"
import * as Report from "./internal/applyReport.js"
import { Halt, type ApplierError as Reason } from "./internal/halt.js"
import { Source } from "./Source.js"

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
export type ApplierError = Reason

export type {
  /** @since 1.0.0 */
  ApplierState,
  /** @since 1.0.0 */
  ApplierStatus,
  /** @since 1.0.0 */
  ApplyReport
} from "./ApplierStatus.js"

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

const makeInert = (source: Source["Type"]): Effect.Effect<Applier["Type"]> =>
  Effect.map(Status.initial(source, "inert"), (status) => ({
    drain: Effect.succeed(Report.nothing),
    pause: Effect.void,
    resume: Effect.void,
    status: Effect.succeed(status),
    changes: Stream.make(status)
  }))

/** Removes the marks that are behind the retention, now and every hour. */
const prune = (applied: AppliedEvents["Type"], retention: Exclude<Options["retention"], "forever" | undefined>) =>
  applied.prune({ ...retention, limit: pruneSize }).pipe(
    Effect.repeat({ while: (pruned) => pruned === pruneSize }),
    Effect.catchAll((error) => Effect.logWarning(`Marks were not pruned. ${error.message}`)),
    Effect.repeat(Schedule.spaced("1 hour"))
  )

type Requirements = Source | AppliedEvents | ArtifactStore

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
    const status = yield* Status.make(source)
    const worker = yield* Worker.make<R>({
      become: status.become,
      failed: status.failed,
      rest: status.enter("idle"),
      drainTimeout,
      retry
    })
    const parts: Pass.Parts<R> = {
      source,
      applied,
      artifacts,
      handlers,
      cannotApply,
      status,
      worker,
      succeeded: worker.succeeded,
      largest: applied.isTransactional ? Math.max(Math.trunc(batchSize), 1) : 1
    }
    if (how.scheduled) {
      const endless = worker.endless(Pass.pass(parts, () => Infinity))
      yield* worker
        .start(endless, retention === "forever" ? [] : [prune(applied, retention)])
        .pipe(Pass.annotate(source))
    }

    return {
      drain: worker.drain(Pass.drain(parts), Report.nothing).pipe(
        Effect.mapError((error) => (error instanceof Halt ? error.error : error)),
        Pass.annotate(source)
      ),
      pause: worker.pause,
      resume: worker.resume,
      status: status.get,
      changes: status.changes
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
