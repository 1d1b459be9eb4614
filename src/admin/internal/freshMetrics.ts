import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import { StatusBoard } from "../StatusBoard.js"

/**
 * Reads the status as often as metrics are exported, so that these say what the outbox holds also while nobody looks.
 */
export const layer = (interval: Duration.Duration): Layer.Layer<never, never, StatusBoard> =>
  Layer.scopedDiscard(
    Effect.flatMap(StatusBoard, ({ status }) =>
      Effect.forkScoped(Effect.repeat(Effect.interruptible(status), Schedule.spaced(interval)))
    )
  )
