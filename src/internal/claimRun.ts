import * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import type { Lane } from "../Lane.js"
import type { Claim, ClaimedRow, OutboxStore, Settlement } from "../OutboxStore.js"
import type { PumpConfig } from "../PumpConfig.js"
import * as PumpMetrics from "../PumpMetrics.js"
import type { Sink } from "../Sink.js"
import * as Batch from "./batch.js"
import * as DrainReport from "./drainReport.js"
import type { Status } from "./pumpStatus.js"

/** Milliseconds after which a claim is given back, also if rows follow: an operator may wait for its lanes. */
const longest = 1_000

/** The share of the publish timeout that may have passed since rows were read ahead when their publish begins. */
const fresh = 0.25

interface Parts {
  readonly sink: Sink["Type"]
  readonly store: OutboxStore["Type"]
  readonly config: PumpConfig["Type"]
  readonly status: Status
  readonly worker: { readonly isHalted: () => boolean }
}

/** Rows of a claim, and when its lanes were taken for them. */
interface Part {
  readonly rows: Arr.NonEmptyReadonlyArray<ClaimedRow>
  readonly heldAt: number
}

/**
 * Publishes the rows of a claim and writes the results back.
 *
 * While the claim has the pump for itself, the rows that follow are read during the publish, and published during the
 * write-back: a single key is never idle. It ends as soon as one row is not published, or `others` have something to
 * publish.
 */
export const run = (
  { config, sink, status, store, worker }: Parts,
  claim: Claim,
  options: {
    readonly claimedAt: number
    /** Whether other lanes have something to publish, or undefined if they are known to. */
    readonly others: ((lanes: ReadonlyArray<Lane>) => boolean) | undefined
  }
): Effect.Effect<DrainReport.DrainReport, DrainReport.PumpError> => {
  const { claimedAt, others } = options
  const publishTimeout = Duration.toMillis(config.publishTimeout)
  // Together they hold no more than half as much again as a batch without.
  const maxBytes = Math.floor(config.batchBytes / 4)

  const hasRoom = (rows: ReadonlyArray<ClaimedRow>) => {
    let bytes = 0
    for (const { payload } of rows) bytes += payload.length
    return bytes <= maxBytes
  }

  const following = Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    const { afterParked, batchSize: limit } = config
    const [rows, { lanes }] = yield* Effect.zip(
      claim
        .following({ now, afterParked, limit, maxBytes })
        .pipe(Metric.trackDurationWith(PumpMetrics.claimDuration, Duration.toSeconds)),
      store.probe({ now, afterParked }),
      { concurrent: true }
    )
    return Arr.isNonEmptyReadonlyArray(rows) && others?.(lanes) !== true
      ? Option.some<Part>({ rows, heldAt: now })
      : Option.none()
  }).pipe(
    // What it finds out is a matter of speed: the publish goes on, and the write-back tells whether the claim stands.
    Effect.catchAll((error) => Effect.as(Effect.logDebug("Could not read the rows that follow", error), Option.none()))
  )

  const written = (
    settlement: Settlement,
    write: Effect.Effect<void, DrainReport.PumpError>
  ): Effect.Effect<DrainReport.DrainReport, DrainReport.PumpError> =>
    Effect.gen(function* () {
      yield* Metric.trackDurationWith(write, PumpMetrics.writeBackDuration, Duration.toSeconds)
      const report = DrainReport.of(settlement)
      yield* status.settled(report, settlement.now)
      return report
    })

  return Effect.suspend(() => {
    let recording: Fiber.RuntimeFiber<DrainReport.DrainReport, DrainReport.PumpError> | undefined
    return Effect.gen(function* () {
      let part: Part = { rows: claim.rows, heldAt: claimedAt }
      let total = DrainReport.nothing
      for (;;) {
        const { heldAt, rows } = part
        yield* Metric.update(PumpMetrics.batchSize, rows.length)
        const readsAhead = others !== undefined && rows.length === config.batchSize && hasRoom(rows)
        const [settlement, next] = yield* Effect.zip(
          Batch.run(sink, config, rows, heldAt),
          readsAhead ? following : Effect.succeedNone,
          { concurrent: readsAhead }
        )
        // One at a time: a claim that is lost is known before a second batch is published on it.
        if (recording !== undefined) total = DrainReport.add(total, yield* Fiber.join(recording))
        const now = yield* Clock.currentTimeMillis
        if (
          Option.isNone(next) ||
          settlement.published.length < rows.length ||
          worker.isHalted() ||
          now - claimedAt >= longest ||
          Math.abs(now - next.value.heldAt) > publishTimeout * fresh
        ) {
          return DrainReport.add(total, yield* written(settlement, claim.settle(settlement)))
        }
        recording = yield* Effect.fork(written(settlement, claim.record(settlement)))
        part = next.value
      }
    }).pipe(
      // The lanes are given back after the write-back: else another pump would publish what it writes.
      Effect.onExit((exit) =>
        recording === undefined
          ? Effect.void
          : Exit.isInterrupted(exit)
            ? Fiber.interrupt(recording)
            : Fiber.await(recording)
      )
    )
  })
}
