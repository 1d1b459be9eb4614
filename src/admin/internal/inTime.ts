/** Looks at the parts of the service, of which one that hangs must not keep the others from being shown. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"

/** How long a look at one part may take. */
export const patience = Duration.seconds(2)

/** Fails with the effect's message, or if it takes too long. An effect that hangs is left to end by itself. */
export const inTime = <A, E extends { readonly message: string }, R>(
  effect: Effect.Effect<A, E, R>,
  who: string
): Effect.Effect<A, string, R> =>
  effect.pipe(
    Effect.disconnect,
    Effect.timeoutFail({
      duration: patience,
      onTimeout: () => ({ message: `${who} did not answer within ${Duration.format(patience)}` })
    }),
    Effect.mapError(({ message }) => message)
  )
