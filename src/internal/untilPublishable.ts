import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type { OutboxError } from "../OutboxStore.js"
import * as PumpMetrics from "../PumpMetrics.js"
import type { WakeUp } from "../WakeUp.js"
import type { Parts } from "./pumpPass.js"

/** Waits until something can be published (a commit, a poll, or a retry that is due) or until a pause. */
export const untilPublishable = (
  { config, status, store, worker }: Parts,
  wakeUp: WakeUp["Type"]
): Effect.Effect<void, OutboxError> =>
  Effect.gen(function* () {
    // Armed before the look: a commit after it wakes the pump.
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
      return yield* worker
        .unlessHalted(woken)
        .pipe(Effect.timeoutTo({ duration: Math.min(poll, due), onSuccess: () => true, onTimeout: () => false }))
    })
    yield* Effect.repeat(lookAndWait, { until: (isOver) => isOver })
  }).pipe(Effect.scoped)
