/** A progress bar on a terminal. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Worker } from "node:worker_threads"

export interface Progress {
  /** Bytes since the last call, and what to say. */
  readonly advance: (bytes: number, message: string) => void
}

/** What the worker is told. */
export type Message =
  { readonly _tag: "Advance"; readonly bytes: number; readonly message: string } | { readonly _tag: "End" }

const none: Progress = { advance: () => {} }

/**
 * A bar on stderr for the length of the scope, where stderr is a terminal. It is removed at the end. `bytes` is
 * undefined where nobody knows how many there will be.
 *
 * It runs in a thread of its own, not for speed: @clack/prompts takes stdin while it shows progress. It would read the
 * events that are piped in, and answer a Ctrl-C by ending the process with success. In a worker there is no keyboard.
 */
export const make = (bytes: number | undefined): Effect.Effect<Progress, never, Scope.Scope> =>
  process.stderr.isTTY
    ? Effect.acquireRelease(
        Effect.sync(() => {
          const worker = new Worker(new URL("./progressWorker.js", import.meta.url), {
            workerData: { bytes },
            // Its stderr is ours, which it cannot know to be a terminal.
            env: process.env.NO_COLOR === undefined ? { FORCE_COLOR: "1", ...process.env } : process.env
          })
          // Nothing waits for a bar that does not end.
          worker.unref()
          const ended = new Promise<void>((resolve) => {
            worker.once("exit", resolve)
            // A bar that breaks is no reason to stop what it tells of.
            worker.once("error", () => resolve())
          })
          const send = (message: Message) => worker.postMessage(message)
          return {
            advance: (bytes: number, message: string) => send({ _tag: "Advance", bytes, message }),
            end: Effect.promise(() => {
              send({ _tag: "End" })
              return ended
            })
          }
        }),
        ({ end }) => end.pipe(Effect.interruptible, Effect.timeoutOption(Duration.seconds(1)))
      )
    : Effect.succeed(none)
