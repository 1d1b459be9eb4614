import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import * as Random from "effect/Random"
import type { Lane } from "../Lane.js"
import { crowd, type OutboxStore } from "../OutboxStore.js"
import type { PumpConfig } from "../PumpConfig.js"
import * as PumpMetrics from "../PumpMetrics.js"
import { SinkUnavailable, type Sink } from "../Sink.js"
import * as Batch from "./batch.js"
import * as DrainReport from "./drainReport.js"
import type { Status } from "./pumpStatus.js"
import type { Worker } from "./worker.js"

type PumpError = DrainReport.PumpError
type Lanes = Arr.NonEmptyReadonlyArray<Lane>

/** What a pump is made of. */
export interface Parts {
  readonly sink: Sink["Type"]
  readonly store: OutboxStore["Type"]
  readonly config: PumpConfig["Type"]
  readonly status: Status
  readonly worker: Worker<never>
}

export interface Pass {
  readonly report: DrainReport.DrainReport
  /** Lanes that had something to publish, those that other pumps hold included. */
  readonly lanes: number
}

/** Claims the publishable rows of lanes, publishes them and writes the results back. */
const publishLanes = ({ config, sink, status, store }: Parts, lanes: Lanes) =>
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
    if (claim._tag !== "Claim") return DrainReport.nothing
    yield* Metric.update(PumpMetrics.batchSize, claim.rows.length)
    const settlement = yield* Batch.run(sink, config, claim.rows, now)
    yield* Metric.trackDurationWith(claim.settle(settlement), PumpMetrics.writeBackDuration, Duration.toSeconds)
    const report = DrainReport.of(settlement)
    yield* status.settled(report, settlement.now)
    return report
  }).pipe(Effect.scoped, annotate(sink))

/** Annotates log lines with their origin. */
export const annotate = (sink: Sink["Type"]) =>
  Effect.annotateLogs({ package: "controlpublish", module: "Pump", sink: sink.name })

const startBatch = (parts: Parts, lanes: Lanes): Effect.Effect<Exit.Exit<DrainReport.DrainReport, PumpError>> =>
  Effect.map(parts.worker.inFlight(publishLanes(parts, lanes)), (exit) =>
    // Only the end of the scope interrupts a batch, and then nobody waits for this.
    Exit.isFailure(exit) && Cause.isInterruptedOnly(exit.cause)
      ? Exit.fail(
          new SinkUnavailable({
            sink: parts.sink.name,
            reason: "defect",
            message: "The sink interrupted its publish"
          })
        )
      : exit
  )

/** A crowded lane is its own batch. Others share one, which costs as much for all as for one. */
const batchesOf = (batchSize: number, lanes: ReadonlyArray<Lane>, crowded: ReadonlySet<Lane>): ReadonlyArray<Lanes> => {
  const [sparse, alone] = Arr.partition(lanes, (lane) => crowded.has(lane))
  const atATime = Math.max(1, Math.floor(batchSize / crowd))
  return [...alone.map(Arr.of), ...Arr.chunksOf(sparse, atATime)]
}

/** Publishes at most one batch of each lane that has publishable rows. */
export const pass = (parts: Parts): Effect.Effect<Pass, PumpError> => {
  const { config, status, store, worker } = parts
  return Effect.gen(function* () {
    if (worker.isHalted()) return { report: DrainReport.nothing, lanes: 0 }
    const probe = yield* store.probe({ now: yield* Clock.currentTimeMillis, afterParked: config.afterParked })
    if (probe.lanes.length === 0 || worker.isHalted()) return { report: DrainReport.nothing, lanes: 0 }
    yield* status.publishing
    // Pumps that start at different lanes meet less.
    const lanes = Array.from(yield* Random.shuffle(probe.lanes))
    let report = DrainReport.nothing
    let failure: Cause.Cause<PumpError> | undefined
    yield* Effect.forEach(
      batchesOf(config.batchSize, lanes, probe.crowded),
      (batch) =>
        Effect.suspend(() =>
          worker.isHalted() || failure !== undefined
            ? Effect.void
            : Effect.map(startBatch(parts, batch), (exit) => {
                if (Exit.isSuccess(exit)) report = DrainReport.add(report, exit.value)
                else failure = exit.cause
              })
        ),
      { concurrency: config.concurrency, discard: true }
    )
    return failure === undefined ? { report, lanes: lanes.length } : yield* Effect.failCause(failure)
  }).pipe(worker.onePass)
}

/** Passes until one publishes nothing. */
export const drain = (parts: Parts): Effect.Effect<DrainReport.DrainReport, PumpError> => {
  const drainFrom = (total: DrainReport.DrainReport): Effect.Effect<DrainReport.DrainReport, PumpError> =>
    Effect.flatMap(pass(parts), ({ report }) =>
      DrainReport.isProgress(report) ? drainFrom(DrainReport.add(total, report)) : Effect.succeed(total)
    )
  return drainFrom(DrainReport.nothing)
}
