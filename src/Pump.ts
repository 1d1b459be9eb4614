/**
 * The pump publishes committed events from the outbox through the sink and writes their control versions back.
 *
 * Any number of pumps can run on one outbox. A pump runs until interrupted. Interruption waits for the publishes in
 * flight and their write-back.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Report from "./internal/drainReport.js"
import * as Pass from "./internal/pumpPass.js"
import * as Status from "./internal/pumpStatus.js"
import { untilPublishable } from "./internal/untilPublishable.js"
import * as Worker from "./internal/worker.js"
import { OutboxStore } from "./OutboxStore.js"
import { PumpConfig } from "./PumpConfig.js"
import * as PumpMetrics from "./PumpMetrics.js"
import type { PumpStatus } from "./PumpStatus.js"
import { Sink } from "./Sink.js"
import { WakeUp } from "./WakeUp.js"

/**
 * Publishes the events of the outbox.
 *
 * @since 0.1.0
 * @category models
 */
export class Pump extends Context.Tag("controlpublish/Pump")<
  Pump,
  {
    /**
     * Publishes until nothing is publishable for this pump, and returns a report. Skips rows that wait for a retry and
     * lanes that another pump holds. Does nothing while the pump is paused. Tests use it to drive a pump without a
     * clock.
     */
    readonly drain: Effect.Effect<DrainReport, PumpError>
    /** Starts no new batch. Returns when no batch is in flight. */
    readonly pause: Effect.Effect<void>
    /** Ends a pause. */
    readonly resume: Effect.Effect<void>
    readonly status: Effect.Effect<PumpStatus>
    /** The current status, and each change. A slow reader misses intermediate values. */
    readonly changes: Stream.Stream<PumpStatus>
  }
>() {}

/**
 * Why a pass failed as a whole. No event was charged an attempt.
 *
 * @since 0.1.0
 * @category errors
 */
export type PumpError = Report.PumpError

/**
 * What a drain did.
 *
 * @since 0.1.0
 * @category models
 */
export type DrainReport = Report.DrainReport

/** How long a pump ignores lanes that others hold. */
const contention = Duration.millis(50)

const makeInert = (sink: Sink["Type"]): Effect.Effect<Pump["Type"]> =>
  Effect.map(Status.inert(sink), (status) => ({
    drain: Effect.succeed(Report.nothing),
    pause: Effect.void,
    resume: Effect.void,
    status: Effect.succeed(status),
    changes: Stream.make(status)
  }))

type Requirements = OutboxStore | WakeUp | Sink | PumpConfig

const makeWith = (options: {
  /** Whether the pump runs by itself, or only when drained. */
  readonly scheduled: boolean
}): Effect.Effect<Pump["Type"], never, Requirements | Scope.Scope> =>
  Effect.gen(function* () {
    const sink = yield* Sink
    if (sink.inert) return yield* makeInert(sink)

    const config = yield* PumpConfig
    const store = yield* OutboxStore
    const status = yield* Status.make(sink, store)
    const worker = yield* Worker.make({
      ...config,
      become: status.become,
      failed: status.failed,
      rest: status.enter("idle")
    })
    const parts: Pass.Parts = { sink, config, status, worker, store }
    const wakeUp = yield* WakeUp

    const step = Effect.gen(function* () {
      const { lanes, report } = yield* Pass.pass(parts)
      if (worker.isHalted()) return
      yield* worker.succeeded
      if (Report.isProgress(report)) return
      yield* lanes > 0 ? worker.unlessHalted(Effect.sleep(contention)) : untilPublishable(parts, wakeUp)
    })
    if (options.scheduled) {
      yield* Metric.increment(PumpMetrics.wakeUps.start)
      yield* worker.start(step).pipe(Pass.annotate(sink))
    }

    return {
      drain: worker.drain(Pass.drain(parts), Report.nothing).pipe(Pass.annotate(sink)),
      pause: worker.pause,
      resume: worker.resume,
      status: status.get,
      changes: status.changes
    }
  })

/**
 * Starts a pump in the scope. When the scope closes, the pump starts no new batch, waits at most the drain timeout for
 * batches in flight and their write-back, and interrupts the rest; their events are published again later.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: Effect.Effect<Pump["Type"], never, Requirements | Scope.Scope> = makeWith({ scheduled: true })

/**
 * Runs a pump as long as the layer's scope is open.
 *
 * @example
 * import { Pump, PumpConfig } from "controlpublish"
 * import { FileSink } from "controlpublish/file"
 * import { Postgres } from "controlpublish/postgres"
 * import { Layer } from "effect"
 *
 * // Needs a PgClient.
 * export const PumpLive = Pump.layer.pipe(
 *   Layer.provide([Postgres.layer(), FileSink.layer({ directory: "feed" }), PumpConfig.layerDefaults])
 * )
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<Pump, never, Requirements> = Layer.scoped(Pump, make)

/**
 * Provides a pump that publishes only when `drain` runs. For tests, and for programs that publish on demand.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerManual: Layer.Layer<Pump, never, Requirements> = Layer.scoped(Pump, makeWith({ scheduled: false }))

/**
 * Provides a pump that does nothing, for an inert sink. It needs no store.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerInert: Layer.Layer<Pump, never, Sink> = Layer.effect(Pump, Effect.flatMap(Sink, makeInert))
