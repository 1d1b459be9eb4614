/**
 * The applier reads the feed and applies every event to a node, exactly once and in order.
 *
 * An applier runs until interrupted. Interruption waits for the events in flight. An event that cannot be applied halts
 * it: later events wait, and the event is retried until it succeeds or somebody fixes the cause.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import * as Worker from "../internal/worker.js"
import { AppliedEvents, retention as defaultRetention } from "./AppliedEvents.js"
import type { ApplierStatus, ApplyReport } from "./ApplierStatus.js"
import { ArtifactStore } from "./ArtifactStore.js"
import type { Handlers } from "./Handlers.js"
import * as Pass from "./internal/applierPass.js"
import * as Status from "./internal/applierStatus.js"
import { watch } from "./internal/marginWatch.js"
import * as Report from "./internal/applyReport.js"
import { Halt, type ApplierError as Reason } from "./internal/halt.js"
import { makeInert } from "./internal/inert.js"
import { Source } from "./Source.js"

/**
 * Applies the events of the feed to a node.
 *
 * @since 0.1.0
 * @category models
 */
export class Applier extends Context.Tag("controlpublish/Applier")<
  Applier,
  {
    /**
     * Applies every event that is in the feed when it starts, and returns a report. Does nothing while the applier is
     * paused. Tests use it to drive an applier without a clock.
     */
    readonly drain: Effect.Effect<ApplyReport, ApplierError>
    /** Starts no other event. Returns when no event is in flight. */
    readonly pause: Effect.Effect<void>
    /** Ends a pause. */
    readonly resume: Effect.Effect<void>
    readonly status: Effect.Effect<ApplierStatus>
    /** The current status, and each change. A slow reader misses intermediate values. */
    readonly changes: Stream.Stream<ApplierStatus>
  }
>() {}

/**
 * Why an applier cannot continue.
 *
 * @since 0.1.0
 * @category errors
 */
export type ApplierError = Reason

export type {
  /** @since 0.1.0 */
  ApplierState,
  /** @since 0.1.0 */
  ApplierStatus,
  /** @since 0.1.0 */
  ApplyReport
} from "./ApplierStatus.js"
import { layerConfig as makeLayerConfig } from "../internal/layerConfig.js"
import type * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"

/**
 * How an applier applies, retries, stops and prunes.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * What happens to an event that can never be applied: it breaks the contract, or its handler fails with
   * `CannotApply`. `halt`: later events wait until somebody fixes the cause. `setAside`: the event is marked with the
   * reason, and the applier continues. Default `halt`.
   */
  readonly cannotApply?: "halt" | "setAside" | undefined
  /**
   * When a failed pass is retried, one step per consecutive failure. When the schedule ends, the applier retries every
   * 30 seconds. Default {@link defaultRetry}.
   */
  readonly retry?: Schedule.Schedule<unknown> | undefined
  /**
   * Most events in one transaction, if so many have arrived and the transaction takes at most 200 ms. If one of them
   * fails, the transaction is rolled back and each event gets its own: a handler repeats what it does outside the
   * transaction. 1 gives each event its own transaction. Default 100.
   */
  readonly batchSize?: number | undefined
  /** How long a stop waits for the events in flight. Default 15 seconds. */
  readonly drainTimeout?: Duration.DurationInput | undefined
  /**
   * Which marks are kept: those at most `keep` control versions behind the cursor, and those younger than `olderThan`.
   * The others are removed at the start and every hour. Default `AppliedEvents.retention`.
   */
  readonly retention?: { readonly keep: number; readonly olderThan: Duration.DurationInput } | "forever" | undefined
}

/**
 * From 100 ms, doubled up to 10 s, jittered by a fifth each way.
 *
 * @since 0.1.0
 * @category schedules
 */
export const defaultRetry: Schedule.Schedule<unknown> = Schedule.exponential("100 millis").pipe(
  Schedule.union(Schedule.spaced("10 seconds")),
  Schedule.jittered
)

/** Marks that one statement removes. */
const pruneSize = 10_000

/** Removes the marks that the retention does not keep, now and every hour. */
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
    /** Whether the applier runs by itself, or only when drained. */
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
      const beside = [watch(source, applied, status), ...(retention === "forever" ? [] : [prune(applied, retention)])]
      yield* worker.start(endless, beside).pipe(Pass.annotate(source))
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
 * Starts an applier in the scope. When the scope closes, the applier starts no other event, waits at most the drain
 * timeout for the events in flight, and interrupts the rest, which is rolled back and applied later.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = <R>(
  handlers: Handlers<R>,
  options: Options = {}
): Effect.Effect<Applier["Type"], never, Requirements | R | Scope.Scope> =>
  makeWith(handlers, options, { scheduled: true })

/**
 * Runs an applier as long as the layer's scope is open.
 *
 * @example
 * import { Applier, ArtifactStore, Handlers } from "controlpublish/fleet"
 * import { FileSource } from "controlpublish/file"
 * import { PostgresAppliedEvents } from "controlpublish/postgres"
 * import { Layer } from "effect"
 *
 * // Needs the PgClient of the node.
 * export const Node = Applier.layer(Handlers.make([], {}, { otherwise: "skip" })).pipe(
 *   Layer.provide([
 *     FileSource.layer({ directory: "feed" }),
 *     PostgresAppliedEvents.layer(),
 *     ArtifactStore.layerNone
 *   ])
 * )
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = <R>(handlers: Handlers<R>, options: Options = {}): Layer.Layer<Applier, never, Requirements | R> =>
  Layer.scoped(Applier, make(handlers, options))

/**
 * Provides the same as {@link layer}, its options read from `Config`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig = <R>(
  handlers: Handlers<R>,
  config: Config.Config.Wrap<Options>
): Layer.Layer<Applier, ConfigError, Requirements | R> =>
  makeLayerConfig((options: Options) => layer(handlers, options))(config)

/**
 * Provides an applier that applies only when `drain` runs. For tests, and for programs that apply on demand.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerManual = <R>(
  handlers: Handlers<R>,
  options: Options = {}
): Layer.Layer<Applier, never, Requirements | R> =>
  Layer.scoped(Applier, makeWith(handlers, options, { scheduled: false }))
