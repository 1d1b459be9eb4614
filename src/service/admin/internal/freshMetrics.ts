import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as ServiceConfig from "../../ServiceConfig.js"
import { StatusBoard } from "../StatusBoard.js"

/**
 * Reads the status as often as metrics are exported, so that these say what the outbox holds also while nobody looks.
 * Does nothing where none are exported.
 */
export const layer: Layer.Layer<never, never, StatusBoard> = Layer.scopedDiscard(
  Effect.gen(function* () {
    const { metrics, metricsInterval } = yield* ServiceConfig.telemetry
    const { status } = yield* StatusBoard
    if (metrics) yield* Effect.forkScoped(Effect.repeat(Effect.interruptible(status), Schedule.spaced(metricsInterval)))
    // Settings that cannot be have ended the start before.
  }).pipe(Effect.catchTag("InvalidSetting", () => Effect.void))
)
