/** A progress bar on a terminal. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Worker } from "node:worker_threads"

export interface Progress {
  /** Bytes since the last call, and the text to show. */
  readonly advance: (bytes: number, message: string) => void
}

/** The messages to the worker. */
export type Message =
  { readonly _tag: "Advance"; readonly bytes: number; readonly message: string } | { readonly _tag: "End" }

const none: Progress = { advance: () => {} }

/**
 * Shows a bar on stderr until the scope closes, if stderr is a terminal. `bytes` is undefined if the total is unknown.
 *
 * The bar runs in a worker thread because @clack/prompts reads stdin while it shows progress: it would read the events
 * that are piped in, and answer a Ctrl-C by ending the process with success. A worker has no keyboard.
 */
export const make = (bytes: number | undefined): Effect.Effect<Progress, never, Scope.Scope> =>
  process.stderr.isTTY
    ? Effect.acquireRelease(
        Effect.sync(() => {
          const worker = new Worker(new URL("./progressWorker.js", import.meta.url), {
            workerData: { bytes },
            // Its stderr is ours, but it cannot detect that it is a terminal.
            env: process.env.NO_COLOR === undefined ? { FORCE_COLOR: "1", ...process.env } : process.env
          })
          // Nothing waits for a bar that hangs.
          worker.unref()
          const ended = new Promise<void>((resolve) => {
            worker.once("exit", resolve)
            // A failing bar must not stop the work.
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
