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
import * as ClaimRun from "./claimRun.js"
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

/**
 * Claims the publishable rows of lanes, publishes them and writes the results back. `passLanes`: the lanes of the pass, if
 * all of them are being published at this time.
 */
const publishLanes = (parts: Parts, lanes: Lanes, passLanes: ReadonlySet<Lane> | undefined) =>
  Effect.gen(function* () {
    const { config, store } = parts
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
    return yield* ClaimRun.run(parts, claim, {
      claimedAt: now,
      others: passLanes && ((publishable) => publishable.some((lane) => !passLanes.has(lane)))
    })
  }).pipe(Effect.scoped, annotate(parts.sink))

/** Annotates log lines with their origin. */
export const annotate = (sink: Sink["Type"]) =>
  Effect.annotateLogs({ package: "controlpublish", module: "Pump", sink: sink.name })

const startBatch = (
  parts: Parts,
  lanes: Lanes,
  passLanes: ReadonlySet<Lane> | undefined
): Effect.Effect<Exit.Exit<DrainReport.DrainReport, PumpError>> =>
  Effect.map(parts.worker.inFlight(publishLanes(parts, lanes, passLanes)), (exit) =>
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

/** Publishes a batch of each lane that has publishable rows, and more if no other lane has any. */
export const pass = (parts: Parts): Effect.Effect<Pass, PumpError> => {
  const { config, status, store, worker } = parts
  return Effect.gen(function* () {
    if (worker.isHalted()) return { report: DrainReport.nothing, lanes: 0 }
    const probe = yield* store.probe({ now: yield* Clock.currentTimeMillis, afterParked: config.afterParked })
    if (probe.lanes.length === 0 || worker.isHalted()) return { report: DrainReport.nothing, lanes: 0 }
    yield* status.publishing
    // Pumps that start at different lanes meet less.
    const lanes = Array.from(yield* Random.shuffle(probe.lanes))
    const batches = batchesOf(config.batchSize, lanes, probe.crowded)
    const passLanes = batches.length <= config.concurrency ? new Set(lanes) : undefined
    let report = DrainReport.nothing
    let failure: Cause.Cause<PumpError> | undefined
    yield* Effect.forEach(
      batches,
      (batch) =>
        Effect.suspend(() =>
          worker.isHalted() || failure !== undefined
            ? Effect.void
            : Effect.map(startBatch(parts, batch, passLanes), (exit) => {
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
