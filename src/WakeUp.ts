/**
 * The port through which appends wake idle pumps.
 *
 * @since 1.0.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"

/**
 * Wakes an idle pump. Best effort: a pump polls as well, so that a wake-up that gets lost costs time and nothing else.
 *
 * @since 1.0.0
 * @category models
 */
export class WakeUp extends Context.Tag("controlpublish/WakeUp")<
  WakeUp,
  {
    /**
     * Asks for a wake-up, for the length of the scope. Answers an effect that completes when one has come since. Look
     * once more for publishable rows between the two: a row that was committed before is not announced.
     */
    readonly arm: Effect.Effect<Effect.Effect<void>, never, Scope.Scope>
  }
>() {}

/**
 * No wake-ups: pumps only poll. For databases behind a pooler in transaction mode, which LISTEN does not pass.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerNone: Layer.Layer<WakeUp> = Layer.succeed(WakeUp, { arm: Effect.succeed(Effect.never) })
