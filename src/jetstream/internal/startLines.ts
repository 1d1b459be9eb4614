import * as Effect from "effect/Effect"
import * as Batches from "./batches.js"
import type { Finding } from "./findings.js"

/**
 * Says what a look at the stream found and how events are published: at the start, also if the first look fails and a
 * later one succeeds, and again what has changed.
 */
export const make = (name: string, wish: Parameters<typeof Batches.describe>[1]) => {
  let said: ReadonlySet<string> = new Set()
  return (findings: ReadonlyArray<Finding>, batches: Batches.Ability): Effect.Effect<void> =>
    Effect.suspend(() => {
      const lines = [
        ...findings.map(({ bound, line }) => ({ line, doubtful: bound !== undefined })),
        Batches.describe(name, wish, batches)
      ]
      const news = lines.filter(({ line }) => !said.has(line))
      said = new Set(lines.map(({ line }) => line))
      return Effect.forEach(news, ({ doubtful, line }) => (doubtful ? Effect.logWarning(line) : Effect.logInfo(line)), {
        discard: true
      })
    })
}
