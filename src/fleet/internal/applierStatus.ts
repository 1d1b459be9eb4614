import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as WorkerStatus from "../../internal/workerStatus.js"
import * as ApplierMetrics from "../ApplierMetrics.js"
import type { ApplierStatus } from "../ApplierStatus.js"
import type { Position, Source } from "../Source.js"
import * as ApplyReport from "./applyReport.js"
import { Halt } from "./halt.js"

/** The status of an applier that begins. */
export const initial = <State extends "idle" | "inert">(source: Source["Type"], state: State) =>
  Effect.map(Clock.currentTimeMillis, (since) => ({
    state,
    since,
    source: source.name,
    position: 0,
    newest: 0,
    failures: 0,
    ...ApplyReport.nothing
  }))

const isUnavailable = (error: unknown): boolean =>
  typeof error === "object" &&
  error !== null &&
  "_tag" in error &&
  (error._tag === "SourceError" || error._tag === "AppliedEventsError")

/** The status of a running applier, with the metrics and log lines of its changes. */
export const make = (source: Source["Type"]) =>
  Effect.gen(function* () {
    const status = yield* WorkerStatus.make<ApplierStatus>(yield* initial(source, "idle"))
    let told: string | undefined

    /** A halted applier is still halted while it retries. */
    const arrived = (version: Position, isFailing: boolean) =>
      status.update(
        ({ newest }) => ({ newest: Math.max(newest, version) }),
        () => (isFailing ? status.activity() : "applying")
      )

    const settled = (version: Position, outcomes: ReadonlyArray<ApplyReport.Outcome>) =>
      Effect.gen(function* () {
        told = undefined
        yield* status.update(
          (before) => ({
            newest: Math.max(before.newest, version),
            position: Math.max(before.position, version),
            ...ApplyReport.add(before, outcomes)
          }),
          ({ newest, position }) => (position < newest ? "applying" : "idle")
        )
        const counts = ApplyReport.add(ApplyReport.nothing, outcomes)
        yield* Metric.incrementBy(ApplierMetrics.applied, counts.applied)
        yield* Metric.incrementBy(ApplierMetrics.skipped, counts.skipped)
        yield* Metric.incrementBy(ApplierMetrics.setAside, counts.setAside)
        yield* Metric.set(ApplierMetrics.position, version)
      })

    const failed = (cause: Cause.Cause<unknown>) =>
      Effect.gen(function* () {
        const at = yield* Clock.currentTimeMillis
        const squashed = Cause.squash(cause)
        const halt = squashed instanceof Halt ? squashed : undefined
        const error = halt === undefined ? squashed : halt.error
        const message = error instanceof Error ? error.message : String(error)
        const event = halt?.event
        const version = event === undefined ? {} : { version: event.version }
        yield* status.update(
          ({ failures }) => ({ failures: failures + 1, lastError: { at, message, ...version } }),
          () => (isUnavailable(error) ? "unavailable" : "halted")
        )
        yield* Metric.increment(ApplierMetrics.failures)
        const which = event === undefined ? "" : ` Event ${event.version} cannot be applied, and later events wait.`
        // Logged once, in full. Retries are logged at debug level.
        const isKnown = told === message
        told = message
        yield* isKnown
          ? Effect.logDebug(`The applier still cannot continue: ${message}`)
          : Effect.logWarning(
              `The applier cannot continue.${which} ${message}`,
              halt === undefined ? cause : Cause.fail(error)
            )
      })

    return { ...status, arrived, settled, failed }
  })

export type Status = Effect.Effect.Success<ReturnType<typeof make>>
