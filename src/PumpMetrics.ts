/**
 * What the pumps of a process measure. The names are stable.
 *
 * Metrics are set once a batch or less often, never per event. The backlog is set with {@link setBacklog} by whoever
 * reads it anyway: a scrape does not query the database.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as MetricBoundaries from "effect/MetricBoundaries"
import type { Count } from "./OutboxStore.js"
import { PumpState } from "./PumpStatus.js"

/**
 * Events published, duplicates included.
 *
 * @since 0.1.0
 * @category counters
 */
export const published = Metric.counter("controlpublish_published_total", {
  description: "Events published, duplicates included",
  incremental: true
})

/**
 * Attempts that failed for one event alone.
 *
 * @since 0.1.0
 * @category counters
 */
export const failed = Metric.counter("controlpublish_failed_total", {
  description: "Attempts that failed for one event alone, which waits for its retry",
  incremental: true
})

/**
 * Events parked.
 *
 * @since 0.1.0
 * @category counters
 */
export const parked = Metric.counter("controlpublish_parked_total", {
  description: "Events that failed for good and were parked",
  incremental: true
})

/**
 * A part that publishing needs.
 *
 * @since 0.1.0
 * @category models
 */
export type Part = "database" | "sink" | "pump"

const allFailures = Metric.counter("controlpublish_pass_failures_total", {
  description: "Passes that failed as a whole, by the part that failed: database, sink or pump",
  incremental: true
})

/**
 * Passes that failed as a whole, by the part that failed. No event was charged an attempt.
 *
 * @since 0.1.0
 * @category counters
 */
export const failures: Readonly<Record<Part, Metric.Metric.Counter<number>>> = {
  database: Metric.tagged(allFailures, "part", "database"),
  sink: Metric.tagged(allFailures, "part", "sink"),
  pump: Metric.tagged(allFailures, "part", "pump")
}

/**
 * Defects of sinks.
 *
 * @since 0.1.0
 * @category counters
 */
export const sinkDefects = Metric.counter("controlpublish_sink_defects_total", {
  description: "Publishes in which the sink died",
  incremental: true
})

/**
 * What sends an idle pump to work. `start`: the pump started · `notify`: a commit announced itself · `poll`: the pump
 * looked by itself · `retry`: the retry of an event was due.
 *
 * @since 0.1.0
 * @category models
 */
export type WakeUpReason = "start" | "notify" | "poll" | "retry"

const allWakeUps = Metric.counter("controlpublish_wake_ups_total", {
  description: "Times an idle pump went to work, by reason: start, notify, poll or retry",
  incremental: true
})

/**
 * Times that an idle pump went to work, by reason. A `poll` that finds events means that appends cannot wake the pump.
 *
 * @since 0.1.0
 * @category counters
 */
export const wakeUps: Readonly<Record<WakeUpReason, Metric.Metric.Counter<number>>> = {
  start: Metric.tagged(allWakeUps, "reason", "start"),
  notify: Metric.tagged(allWakeUps, "reason", "notify"),
  poll: Metric.tagged(allWakeUps, "reason", "poll"),
  retry: Metric.tagged(allWakeUps, "reason", "retry")
}

/**
 * Sets all counters to zero, so that readers see them before they grow.
 *
 * @since 0.1.0
 * @category counters
 */
export const zero: Effect.Effect<void> = Effect.forEach(
  [published, failed, parked, sinkDefects, ...Object.values(failures), ...Object.values(wakeUps)],
  (counter) => Metric.incrementBy(counter, 0),
  { discard: true }
)

/**
 * Events of a batch.
 *
 * @since 0.1.0
 * @category histograms
 */
export const batchSize = Metric.histogram(
  "controlpublish_batch_size",
  MetricBoundaries.fromIterable([1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000]),
  "Events of a batch"
)

const seconds = MetricBoundaries.fromIterable([
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30
])

/**
 * Seconds to claim the rows of a batch.
 *
 * @since 0.1.0
 * @category histograms
 */
export const claimDuration = Metric.histogram(
  "controlpublish_claim_duration_seconds",
  seconds,
  "How long it took to claim the rows of a batch"
)

/**
 * Seconds until the sink answered for a batch. Publishes that failed as a whole are not included.
 *
 * @since 0.1.0
 * @category histograms
 */
export const publishDuration = Metric.histogram(
  "controlpublish_publish_duration_seconds",
  seconds,
  "How long the sink took to answer for a batch"
)

/**
 * Seconds to write back the results of a batch.
 *
 * @since 0.1.0
 * @category histograms
 */
export const writeBackDuration = Metric.histogram(
  "controlpublish_write_back_duration_seconds",
  seconds,
  "How long it took to write back what became of a batch"
)

const pumpState = Metric.gauge("controlpublish_pump_state", {
  description: "1 for the state of the pump, 0 for the others"
})

const states = PumpState.literals.map((state) => [state, Metric.tagged(pumpState, "state", state)] as const)

/**
 * Sets the state of the process's pump to 1 and the other states to 0.
 *
 * @since 0.1.0
 * @category gauges
 */
export const setState = (current: PumpState): Effect.Effect<void> =>
  Effect.forEach(states, ([state, gauge]) => Metric.set(gauge, state === current ? 1 : 0), { discard: true })

const pending = Metric.gauge("controlpublish_backlog_pending", {
  description:
    "Events that are neither published nor parked, the waiting ones included; a lower bound where it is large"
})

const waiting = Metric.gauge("controlpublish_backlog_waiting", {
  description: "Pending events that wait for a retry"
})

const parkedNow = Metric.gauge("controlpublish_backlog_parked", {
  description: "Events that are parked now"
})

const oldestPendingAge = Metric.gauge("controlpublish_oldest_pending_age_seconds", {
  description: "Age of the oldest pending event in seconds; 0 if there is none"
})

/**
 * Sets the backlog. A count that stopped at its limit is reported as the limit.
 *
 * @since 0.1.0
 * @category gauges
 */
export const setBacklog = (
  backlog: {
    readonly pending: Count
    readonly waiting: Count
    readonly parked: Count
    readonly oldestPendingAt?: number | undefined
  },
  now: number
): Effect.Effect<void> =>
  Effect.all(
    [
      Metric.set(pending, backlog.pending.value),
      Metric.set(waiting, backlog.waiting.value),
      Metric.set(parkedNow, backlog.parked.value),
      Metric.set(oldestPendingAge, Math.max(now - (backlog.oldestPendingAt ?? now), 0) / 1_000)
    ],
    { discard: true }
  )

const healthy = Metric.gauge("controlpublish_healthy", {
  description: "1 if the part (database, sink, pump) can work, else 0"
})

const parts = (["database", "sink", "pump"] as const).map((part): readonly [Part, Metric.Metric.Gauge<number>] => [
  part,
  Metric.tagged(healthy, "part", part)
])

/**
 * Sets which parts can work.
 *
 * @since 0.1.0
 * @category gauges
 */
export const setHealthy = (health: Readonly<Record<Part, boolean>>): Effect.Effect<void> =>
  Effect.forEach(parts, ([part, gauge]) => Metric.set(gauge, health[part] ? 1 : 0), { discard: true })
