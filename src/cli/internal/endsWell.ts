import * as Effect from "effect/Effect"

/** For commands that run until they are stopped: that is how they end well, with exit code 0. */
export const endsWell = <A, E, R>(command: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.onInterrupt(command, () =>
    Effect.sync(() => {
      process.exitCode = 0
    })
  )
