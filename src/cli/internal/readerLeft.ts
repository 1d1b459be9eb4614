import * as Effect from "effect/Effect"

/** Completes when stdout has no reader any more, as after `head`. */
export const readerLeft = Effect.async<void>((resume) => {
  // It is never removed: writes in flight fail as well.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    resume(error.code === "EPIPE" ? Effect.void : Effect.die(error))
  })
})
