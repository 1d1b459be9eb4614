import * as Effect from "effect/Effect"

/** Turns an interruption into success, for commands that run until they are stopped. */
export const endsWell = <A, E, R>(command: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.onInterrupt(command, () =>
    Effect.sync(() => {
      process.exitCode = 0
    })
  )
