import * as Effect from "effect/Effect"
import type * as Schedule from "effect/Schedule"
import * as ScheduleDecision from "effect/ScheduleDecision"
import * as ScheduleIntervals from "effect/ScheduleIntervals"

/**
 * When an event that failed `attempts` times (at least 1) is retried, in milliseconds since the epoch, or `undefined`
 * if the schedule has ended. The schedule's state is derived from the count, so any pump can take the event next.
 */
export const nextAttemptAt = <In, Out>(
  schedule: Schedule.Schedule<Out, In>,
  input: In,
  attempts: number,
  now: number
): Effect.Effect<number | undefined> =>
  Effect.gen(function* () {
    let state: unknown = schedule.initial
    let at = now
    for (let attempt = 0; attempt < attempts; attempt++) {
      const step: readonly [unknown, Out, ScheduleDecision.ScheduleDecision] = yield* schedule.step(now, input, state)
      const [next, , decision] = step
      if (ScheduleDecision.isDone(decision)) return undefined
      state = next
      at = ScheduleIntervals.start(decision.intervals)
    }
    return Math.max(Math.ceil(at), now)
  })
