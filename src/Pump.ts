/**
 * The pump moves committed events from the outbox to the sink and writes their control versions back.
 *
 * Any number of pumps can run on one outbox. Nothing ends a pump but interruption, and that finishes the publishes in
 * flight and their write-back first.
 *
 * @since 1.0.0
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Batch from "./internal/batch.js"
import type { Lane } from "./Lane.js"
import { crowd, OutboxError, OutboxStore, type Settlement } from "./OutboxStore.js"
import { PumpConfig } from "./PumpConfig.js"
import * as PumpMetrics from "./PumpMetrics.js"
import type { PumpState, PumpStatus } from "./PumpStatus.js"
import { Sink, SinkUnavailable } from "./Sink.js"
import { WakeUp } from "./WakeUp.js"

/**
 * @since 1.0.0
 * @category models
 */
export class Pump extends Context.Tag("controlpublish/Pump")<
  Pump,
  {
    /**
     * Publishes until nothing is publishable for this pump, and reports what it did. Rows that wait for a retry, and
     * lanes that another pump holds, are left. Does nothing while the pump is paused. This is how tests drive a pump
     * without a clock.
     */
    readonly drain: Effect.Effect<DrainReport, PumpError>
    /** Starts no new batch from now on. Returns when no batch is in flight. */
    readonly pause: Effect.Effect<void>
    /** Ends a pause. */
    readonly resume: Effect.Effect<void>
    readonly status: Effect.Effect<PumpStatus>
    /** The status now and whenever it changes. A slow reader misses what lies between. */
    readonly changes: Stream.Stream<PumpStatus>
  }
>() {}

/**
 * Why a pass failed as a whole. No event was charged.
 *
 * @since 1.0.0
 * @category errors
 */
export type PumpError = SinkUnavailable | OutboxError

/**
 * @since 1.0.0
 * @category models
 */
export interface DrainReport {
  /** Batches that were written back. */
  readonly batches: number
  readonly published: number
  /** Attempts that failed for one event alone; it waits for its retry. */
  readonly failed: number
  readonly parked: number
}

const nothing: DrainReport = { batches: 0, published: 0, failed: 0, parked: 0 }

const add = (self: DrainReport, that: DrainReport): DrainReport => ({
  batches: self.batches + that.batches,
  published: self.published + that.published,
  failed: self.failed + that.failed,
  parked: self.parked + that.parked
})

const isProgress = (report: DrainReport): boolean => report.published + report.failed + report.parked > 0

const reportOf = (settlement: Settlement): DrainReport => ({
  batches: 1,
  published: settlement.published.length,
  failed: settlement.failed.length,
  parked: settlement.parked.length
})

/** How long a pump leaves lanes alone that others hold. */
const contention = Duration.millis(50)

const describe = (cause: Cause.Cause<PumpError>) => {
  const error = Cause.squash(cause)
  return {
    of: error instanceof SinkUnavailable ? "sink" : error instanceof OutboxError ? "database" : "pump",
    message: error instanceof Error ? error.message : String(error)
  } as const
}

const initialStatus = (sink: Sink["Type"], state: PumpState): Effect.Effect<PumpStatus> =>
  Effect.map(Clock.currentTimeMillis, (since) => ({ state, since, sink: sink.name, failures: 0, ...nothing }))

const makeInert = (sink: Sink["Type"]): Effect.Effect<Pump["Type"]> =>
  Effect.map(Effect.zipLeft(initialStatus(sink, "inert"), PumpMetrics.setState("inert")), (status) => ({
    drain: Effect.succeed(nothing),
    pause: Effect.void,
    resume: Effect.void,
    status: Effect.succeed(status),
    changes: Stream.make(status)
  }))

const makeStatus = (sink: Sink["Type"]) =>
  Effect.gen(function* () {
    const ref = yield* SubscriptionRef.make(yield* initialStatus(sink, "idle"))
    yield* Effect.zipRight(PumpMetrics.zero, PumpMetrics.setState("idle"))
    const enter = (state: PumpState) =>
      Effect.flatMap(SubscriptionRef.get(ref), (status) =>
        status.state === state
          ? Effect.void
          : Effect.flatMap(Clock.currentTimeMillis, (since) =>
              SubscriptionRef.update(ref, (status) => ({ ...status, state, since }))
            ).pipe(Effect.zipRight(PumpMetrics.setState(state)))
      )
    // Until something was published, an outage is not over.
    const working = Effect.flatMap(SubscriptionRef.get(ref), (status) =>
      status.state === "unavailable" ? Effect.void : enter("publishing")
    )
    const settled = (report: DrainReport, now: number) =>
      SubscriptionRef.update(ref, (status) => ({
        ...status,
        ...add(status, report),
        ...(report.published > 0 ? { lastPublishedAt: now } : {})
      })).pipe(
        Effect.zipRight(Metric.incrementBy(PumpMetrics.published, report.published)),
        Effect.zipRight(Metric.incrementBy(PumpMetrics.failed, report.failed)),
        Effect.zipRight(Metric.incrementBy(PumpMetrics.parked, report.parked)),
        Effect.zipRight(SubscriptionRef.get(ref)),
        Effect.flatMap((status) => (status.state === "unavailable" ? enter("publishing") : Effect.void))
      )
    const failed = (cause: Cause.Cause<PumpError>) =>
      Effect.gen(function* () {
        const at = yield* Clock.currentTimeMillis
        const before = yield* SubscriptionRef.get(ref)
        const error = describe(cause)
        yield* SubscriptionRef.update(ref, (status) => ({
          ...status,
          failures: status.failures + 1,
          lastError: { at, ...error }
        }))
        yield* Metric.increment(PumpMetrics.failures[error.of])
        // Said once an outage, and in full; its retries are said at debug level.
        yield* before.state === "unavailable"
          ? Effect.logDebug("The pump still cannot publish", cause)
          : Effect.logWarning("The pump cannot publish and backs off", cause)
        yield* enter("unavailable")
      })
    return { ref, enter, working, settled, failed }
  })

type Requirements = OutboxStore | WakeUp | Sink | PumpConfig

const makeWith = (options: {
  /** Whether the pump runs by itself, or only when it is drained. */
  readonly scheduled: boolean
}): Effect.Effect<Pump["Type"], never, Requirements | Scope.Scope> =>
  Effect.gen(function* () {
    const sink = yield* Sink
    if (sink.inert) return yield* makeInert(sink)

    const store = yield* OutboxStore
    const wakeUp = yield* WakeUp
    const config = yield* PumpConfig
    const status = yield* makeStatus(sink)
    const running = yield* Effect.makeLatch(true)
    const pausing = yield* Effect.makeLatch(false)
    const onePass = yield* Effect.makeSemaphore(1)
    let paused = false
    let stopping = false

    yield* Effect.addFinalizer(() => status.enter("stopped"))
    const inFlight = yield* FiberSet.make<DrainReport, PumpError>()
    // Batches outlive the fiber that asks for them, and see none of its context: a caller's transaction least of all.
    const runInFlight = yield* FiberSet.runtime(inFlight)()
    const annotated = Effect.annotateLogs({ package: "controlpublish", module: "Pump", sink: sink.name })

    const publishLanes = (lanes: Arr.NonEmptyReadonlyArray<Lane>): Effect.Effect<DrainReport, PumpError> =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const claim = yield* store
          .claim({
            lanes,
            now,
            limit: config.batchSize,
            maxBytes: config.batchBytes,
            holdFor: Duration.toMillis(config.publishTimeout),
            afterParked: config.afterParked
          })
          .pipe(Metric.trackDurationWith(PumpMetrics.claimDuration, Duration.toSeconds))
        if (claim._tag !== "Claim") return nothing
        yield* Metric.update(PumpMetrics.batchSize, claim.rows.length)
        const settlement = yield* Batch.run(sink, config, claim.rows, now)
        yield* Metric.trackDurationWith(claim.settle(settlement), PumpMetrics.writeBackDuration, Duration.toSeconds)
        const report = reportOf(settlement)
        yield* status.settled(report, settlement.now)
        return report
      }).pipe(Effect.scoped, Effect.interruptible, annotated)

    const startBatch = (lanes: Arr.NonEmptyReadonlyArray<Lane>): Effect.Effect<Exit.Exit<DrainReport, PumpError>> =>
      Effect.map(Fiber.await(runInFlight(publishLanes(lanes))), (exit) =>
        // Nobody interrupts a batch but the end of the scope, and then nobody waits for this either.
        Exit.isFailure(exit) && Cause.isInterruptedOnly(exit.cause)
          ? Exit.fail(
              new SinkUnavailable({ sink: sink.name, reason: "defect", message: "The sink interrupted its publish" })
            )
          : exit
      )

    /** A crowded lane is a batch of its own. Others share one, which costs as much for all as for one of them. */
    const batchesOf = (lanes: ReadonlyArray<Lane>, crowded: ReadonlySet<Lane>) => {
      const [sparse, alone] = Arr.partition(lanes, (lane) => crowded.has(lane))
      const atATime = Math.max(1, Math.floor(config.batchSize / crowd))
      return [...alone.map(Arr.of), ...Arr.chunksOf(sparse, atATime)]
    }

    interface Pass {
      readonly report: DrainReport
      readonly lanes: number
    }

    const halted = () => paused || stopping

    const pass: Effect.Effect<Pass, PumpError> = Effect.gen(function* () {
      if (halted()) return { report: nothing, lanes: 0 }
      const probe = yield* store.probe({ now: yield* Clock.currentTimeMillis, afterParked: config.afterParked })
      if (probe.lanes.length === 0) return { report: nothing, lanes: 0 }
      yield* status.working
      // Pumps that start at different lanes meet less.
      const lanes = Array.from(yield* Random.shuffle(probe.lanes))
      let report = nothing
      let failure: Cause.Cause<PumpError> | undefined
      yield* Effect.forEach(
        batchesOf(lanes, probe.crowded),
        (lanes) =>
          Effect.suspend(() =>
            halted() || failure !== undefined
              ? Effect.void
              : Effect.map(startBatch(lanes), (exit) => {
                  if (Exit.isSuccess(exit)) report = add(report, exit.value)
                  else failure = exit.cause
                })
          ),
        { concurrency: config.concurrency, discard: true }
      )
      return failure === undefined ? { report, lanes: lanes.length } : yield* Effect.failCause(failure)
    }).pipe(onePass.withPermits(1))

    const drainFrom = (total: DrainReport): Effect.Effect<DrainReport, PumpError> =>
      Effect.flatMap(pass, ({ report }) => (isProgress(report) ? drainFrom(add(total, report)) : Effect.succeed(total)))

    const untilPublishable = Effect.gen(function* () {
      const woken = Effect.zipRight(yield* wakeUp.arm, Metric.increment(PumpMetrics.wakeUps.notify))
      let waitedFor: "poll" | "retry" | undefined
      const lookAndWait = Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const probe = yield* store.probe({ now, afterParked: config.afterParked })
        if (probe.lanes.length > 0) {
          if (waitedFor !== undefined) yield* Metric.increment(PumpMetrics.wakeUps[waitedFor])
          return true
        }
        yield* status.enter("idle")
        const poll = Duration.toMillis(config.pollPeriod)
        const due = Math.max((probe.nextAttemptAt ?? Infinity) - now, 1)
        waitedFor = due <= poll ? "retry" : "poll"
        return yield* Effect.raceFirst(woken, pausing.await).pipe(
          Effect.timeoutTo({ duration: Math.min(poll, due), onSuccess: () => true, onTimeout: () => false })
        )
      })
      yield* Effect.repeat(lookAndWait, { until: (wanted) => wanted })
    }).pipe(Effect.scoped)

    const step: Effect.Effect<void, PumpError> = Effect.gen(function* () {
      if (paused) {
        yield* status.enter("paused")
        return yield* running.await
      }
      const { lanes, report } = yield* pass
      if (isProgress(report)) return
      yield* lanes > 0 ? Effect.sleep(contention) : untilPublishable
    })

    const loop = step.pipe(
      Effect.sandbox,
      Effect.tapError((cause) => status.failed(cause)),
      Effect.retry(Schedule.andThen(config.retry, Schedule.spaced("30 seconds"))),
      Effect.forever,
      annotated,
      (loop) => Effect.zipRight(Metric.increment(PumpMetrics.wakeUps.start), loop)
    )
    // Not in the scope, which would wait for it without a deadline: the finalizer sees to it.
    const looping = options.scheduled ? yield* Effect.forkDaemon(Effect.interruptible(loop)) : Fiber.void
    yield* Effect.addFinalizer(() =>
      Effect.gen(function* () {
        stopping = true
        yield* status.enter("stopping")
        yield* Effect.zip(Fiber.interrupt(looping), FiberSet.awaitEmpty(inFlight), { concurrent: true })
      }).pipe(Effect.interruptible, Effect.timeoutOption(config.drainTimeout))
    )

    return {
      drain: drainFrom(nothing),
      pause: Effect.gen(function* () {
        paused = true
        yield* running.close
        yield* pausing.open
        yield* FiberSet.awaitEmpty(inFlight)
        if (halted()) yield* status.enter("paused")
      }),
      resume: Effect.gen(function* () {
        if (!paused) return
        paused = false
        yield* status.enter("idle")
        yield* pausing.close
        yield* running.open
      }),
      status: SubscriptionRef.get(status.ref),
      changes: status.ref.changes
    }
  })

/**
 * Starts a pump in the scope. Closing the scope starts no new batch, waits at most the drain timeout for those in
 * flight and their write-back, and interrupts what is left; its events come again.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make: Effect.Effect<Pump["Type"], never, Requirements | Scope.Scope> = makeWith({ scheduled: true })

/**
 * A pump that runs as long as the layer.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer: Layer.Layer<Pump, never, Requirements> = Layer.scoped(Pump, make)

/**
 * A pump that runs only when it is drained. For tests, and for programs that publish on demand.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerManual: Layer.Layer<Pump, never, Requirements> = Layer.scoped(Pump, makeWith({ scheduled: false }))

/**
 * A pump with nothing to do, for a sink that is inert: it needs no store.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerInert: Layer.Layer<Pump, never, Sink> = Layer.effect(Pump, Effect.flatMap(Sink, makeInert))
