import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import { OutboxError, type OutboxStore } from "../OutboxStore.js"
import * as PumpMetrics from "../PumpMetrics.js"
import type { PumpStatus } from "../PumpStatus.js"
import { SinkUnavailable, type Sink } from "../Sink.js"
import * as DrainReport from "./drainReport.js"
import * as WorkerStatus from "./workerStatus.js"

const initial = <State extends "idle" | "inert">(sink: Sink["Type"], state: State) =>
  Effect.map(Clock.currentTimeMillis, (since) => ({
    state,
    since,
    sink: sink.name,
    failures: 0,
    ...DrainReport.nothing
  }))

/** The status of a pump with an inert sink. */
export const inert = (sink: Sink["Type"]): Effect.Effect<PumpStatus> =>
  Effect.zipLeft(initial(sink, "inert"), PumpMetrics.setState("inert"))

const describe = (cause: Cause.Cause<unknown>) => {
  const error = Cause.squash(cause)
  return {
    of: error instanceof SinkUnavailable ? "sink" : error instanceof OutboxError ? "database" : "pump",
    message: error instanceof Error ? error.message : String(error)
  } as const
}

/** How far the rows that an outage has left are counted. */
const countLimit = 100_000

/** The backlog after an outage, for a log line. Empty if the store does not answer in time. */
const leftOver = (store: OutboxStore["Type"]): Effect.Effect<string> =>
  store.backlog({ limit: countLimit }).pipe(
    Effect.map(({ pending: { exact, value } }) => {
      const count = value.toLocaleString("en-US")
      return `; ${exact ? count : `at least ${count}`} pending`
    }),
    Effect.disconnect,
    Effect.timeout("2 seconds"),
    Effect.orElseSucceed(() => "")
  )

/** The status of a running pump, with the metrics and log lines of its changes. */
export const make = (sink: Sink["Type"], store: OutboxStore["Type"]) =>
  Effect.gen(function* () {
    const status = yield* WorkerStatus.make<PumpStatus>(yield* initial(sink, "idle"), PumpMetrics.setState)
    yield* Effect.zipRight(PumpMetrics.zero, PumpMetrics.setState("idle"))

    let unavailableSince = 0
    const isUnavailable = () => status.activity() === "unavailable"

    /** An outage is not over until something was published. */
    const publishing = Effect.suspend(() => (isUnavailable() ? Effect.void : status.enter("publishing")))

    const settled = (report: DrainReport.DrainReport, now: number) =>
      Effect.gen(function* () {
        const outage = isUnavailable() ? Math.round((now - unavailableSince) / 1000) : undefined
        yield* status.update(
          (before) => ({
            ...DrainReport.add(before, report),
            ...(report.published > 0 ? { lastPublishedAt: now } : {})
          }),
          () => (isUnavailable() ? "publishing" : status.activity())
        )
        yield* Metric.incrementBy(PumpMetrics.published, report.published)
        yield* Metric.incrementBy(PumpMetrics.failed, report.failed)
        yield* Metric.incrementBy(PumpMetrics.parked, report.parked)
        // Batches that end together log it once: the first has changed the activity.
        if (outage !== undefined) yield* Effect.logInfo(`Publishing again after ${outage} s${yield* leftOver(store)}`)
      })

    const failed = (cause: Cause.Cause<unknown>) =>
      Effect.gen(function* () {
        const at = yield* Clock.currentTimeMillis
        const error = describe(cause)
        const isKnown = isUnavailable()
        if (!isKnown) unavailableSince = at
        yield* status.update(
          ({ failures }) => ({ failures: failures + 1, lastError: { at, ...error } }),
          () => "unavailable"
        )
        yield* Metric.increment(PumpMetrics.failures[error.of])
        // Logged once an outage, in full. Retries are logged at debug level.
        yield* isKnown
          ? Effect.logDebug("The pump still cannot publish", cause)
          : Effect.logWarning("The pump cannot publish and backs off", cause)
      })

    return { ...status, publishing, settled, failed }
  })

export type Status = Effect.Effect.Success<ReturnType<typeof make>>
