import * as Console from "effect/Console"
import type * as Effect from "effect/Effect"
import { version } from "../../internal/version.js"

/** The lines that a long-running command prints at its start. */
export const announce = (lines: Record<string, string>): Effect.Effect<void> => {
  const width = Math.max(9, ...Object.keys(lines).map(({ length }) => length))
  return Console.log(
    [
      `controlpublish ${version}`,
      ...Object.entries(lines).map(([name, value]) => `  ${name.padEnd(width)} ${value}`),
      "Stop with Ctrl-C."
    ].join("\n")
  )
}
