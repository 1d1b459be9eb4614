/**
 * The port through which appends wake idle pumps.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"

/**
 * Wakes an idle pump. Best effort: a pump also polls, so a lost wake-up costs only time.
 *
 * @since 0.1.0
 * @category models
 */
export class WakeUp extends Context.Tag("controlpublish/WakeUp")<
  WakeUp,
  {
    /**
     * Asks for a wake-up while the scope is open. Returns an effect that completes when one has come since. Look for
     * publishable rows once more between the two: a row committed before is not announced.
     */
    readonly arm: Effect.Effect<Effect.Effect<void>, never, Scope.Scope>
  }
>() {}

/**
 * Provides no wake-ups: pumps only poll. For databases behind a pooler in transaction mode, through which LISTEN does
 * not work.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerNone: Layer.Layer<WakeUp> = Layer.succeed(WakeUp, { arm: Effect.succeed(Effect.never) })
