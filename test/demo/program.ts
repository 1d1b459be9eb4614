import { Effect, type Scope } from "effect"
import { spawn, type ChildProcess } from "node:child_process"
import { once } from "node:events"
import { createWriteStream } from "node:fs"

/** A process that can be killed and started again. */
export interface Program {
  /** The file of its output. */
  readonly log: string
  readonly isRunning: () => boolean
  /** Does nothing where it runs. */
  readonly start: Effect.Effect<void>
  /** Answers when it is gone. */
  readonly end: (signal: NodeJS.Signals) => Effect.Effect<void>
}

/** A program for Node, started, its output in a file. It is killed when the scope closes. */
export const start = (
  args: ReadonlyArray<string>,
  options: { readonly cwd: string; readonly env: Readonly<Record<string, string>>; readonly log: string }
): Effect.Effect<Program, never, Scope.Scope> =>
  Effect.gen(function* () {
    const { HOME = "/", PATH = "" } = process.env
    let child: ChildProcess | undefined
    const isRunning = () => child !== undefined && child.exitCode === null && child.signalCode === null
    const program: Program = {
      log: options.log,
      isRunning,
      start: Effect.sync(() => {
        if (isRunning()) return
        const log = createWriteStream(options.log, { flags: "a" })
        child = spawn(process.execPath, args, { cwd: options.cwd, env: { HOME, PATH, ...options.env } })
        child.stdout!.pipe(log, { end: false })
        child.stderr!.pipe(log, { end: false })
        child.once("close", () => log.end())
      }),
      end: (signal) =>
        Effect.promise(async () => {
          if (child === undefined || !isRunning()) return
          const exit = once(child, "exit")
          child.kill(signal)
          await exit
        })
    }
    yield* Effect.acquireRelease(program.start, () => program.end("SIGKILL"))
    return program
  })
