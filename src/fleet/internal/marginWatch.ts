import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Schedule from "effect/Schedule"
import type { AppliedEvents } from "../AppliedEvents.js"
import * as ApplierMetrics from "../ApplierMetrics.js"
import type { Source } from "../Source.js"
import type { Status } from "./applierStatus.js"

/** How often a node looks how near it is to the bound of its feed. */
const period = Duration.seconds(10)

/** A warning says that this share of what the feed keeps is unread, and another one that more of it is. */
const steps = [0.5, 0.75, 0.9] as const

/** How many of the steps a share has reached. It has to fall well below one to be below it. */
const reached = (used: number, before: number): number =>
  steps.filter((step, index) => used >= (index < before ? step * 0.8 : step)).length

/**
 * Looks at the margin between the node's position and the bound of the feed, also while the applier is halted, paused or
 * busy: that is when a node falls behind. What cannot be looked at is the applier's to report.
 */
export const watch = (source: Source["Type"], applied: AppliedEvents["Type"], status: Status): Effect.Effect<void> => {
  const { margin } = source
  if (margin === undefined) return Effect.void
  let step = 0
  const look = Effect.gen(function* () {
    const { position } = yield* applied.cursor
    const { bounds, used } = yield* margin(position)
    yield* status.update(() => ({ bounds, boundUsed: used }))
    yield* Metric.set(ApplierMetrics.boundUsed, used)
    const before = step
    step = reached(used, before)
    const messages = bounds.filter(({ reach }) => reach !== undefined).map(({ message }) => message)
    const share = `${Math.floor(used * 100)} % of what the feed keeps is unread by this node`
    if (step > before) {
      yield* Effect.logWarning(
        `${share}, at 100 % it can no longer catch up. ${messages.join("; ")}: see why the node is behind, or raise the limit`
      )
    } else if (step === 0 && before > 0) yield* Effect.logInfo(`${share}: it is far from the bound again`)
  })
  return look.pipe(
    Effect.catchAll((error) => Effect.logDebug("Cannot see how far this node is behind", error)),
    Effect.repeat(Schedule.spaced(period)),
    Effect.asVoid
  )
}
