import * as Effect from "effect/Effect"

/** How a law was broken. */
export class Broken {
  constructor(readonly message: string) {}
}

export const check = (condition: boolean, message: () => string): Effect.Effect<void, Broken> =>
  condition ? Effect.void : Effect.fail(new Broken(message()))

export const missing = (hook: string) => Effect.fail(new Broken(`The harness has no hook "${hook}"`))
