import * as Effect from "effect/Effect"

/** Completes when nobody reads stdout any more, as `head` does not after its lines. */
export const readerLeft = Effect.async<void>((resume) => {
  // It stays: what is still on its way fails as well.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    resume(error.code === "EPIPE" ? Effect.void : Effect.die(error))
  })
})
