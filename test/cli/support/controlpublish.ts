/** The command as a process of its own, as users run it. */
import { Context, Effect, Layer, type Scope } from "effect"
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import { inject } from "vitest"
import { openDirectory } from "../../support/openDirectory.js"

/** The file to run. */
export class Program extends Context.Tag("test/Program")<Program, string>() {}

/** The one that the run of the tests has built, see `test/support/program.ts`. */
export const layerProgram = Layer.sync(Program, () => inject("program"))

/**
 * A working directory that lives as long as the scope. So does the embedded database in it, which a process that a test
 * had to kill leaves running.
 */
export const workingDirectory = Effect.acquireRelease(
  Effect.promise(() => openDirectory("controlpublish-service-")),
  (directory) =>
    Effect.promise(async () => {
      const pidFile = Path.join(directory, ".controlpublish", "postgres", "postmaster.pid")
      const pid = Number.parseInt(await Fs.readFile(pidFile, "utf8").catch(() => ""), 10)
      if (pid > 0) process.kill(pid, "SIGKILL")
      await Fs.rm(directory, { recursive: true, force: true, maxRetries: 20 })
    })
)

export interface Result {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface Running {
  readonly process: ChildProcess
  /** Completes when stdout and stderr together match. Fails when the process ends before. */
  readonly waitFor: (pattern: RegExp) => Effect.Effect<void>
  /** What it has printed to stdout. */
  readonly printed: Effect.Effect<string>
  /** What it has printed to stderr. */
  readonly logged: Effect.Effect<string>
  readonly end: Effect.Effect<Result>
  readonly stop: (signal: NodeJS.Signals) => Effect.Effect<Result>
}

export interface Options {
  readonly cwd?: string
  /** All that the process gets of settings: nothing is inherited. */
  readonly env?: Record<string, string>
  /** Written to stdin, which is closed then. Absent: stdin stays open until the process ends. */
  readonly input?: string | Uint8Array
  /** On a terminal, see `hasTerminal`: what it prints to stderr comes on stdout. */
  readonly terminal?: boolean
}

/** Whether processes can be given a terminal here, by the `script` of util-linux. */
export const hasTerminal = /util-linux/.test(String(spawnSync("script", ["--version"]).stdout))

/** Starts the program. At the end of the scope it is killed if it still runs. */
export const start = (
  program: string,
  args: ReadonlyArray<string>,
  { cwd = Os.tmpdir(), env = {}, input, terminal = false }: Options = {}
): Effect.Effect<Running, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const { HOME = "/", PATH = "" } = process.env
      const command = [process.execPath, program, ...args]
      const line = command.map((arg) => `'${arg}'`).join(" ")
      const [file = "", ...rest] = terminal ? ["script", "-qefc", `exec ${line}`, "/dev/null"] : command
      const child = spawn(file, rest, { cwd, env: { HOME, PATH, ...env } })
      const printed = { stdout: "", stderr: "" }
      let changed = () => {}
      for (const name of ["stdout", "stderr"] as const) {
        child[name].setEncoding("utf8").on("data", (text: string) => {
          printed[name] += text
          changed()
        })
      }
      // Who ends without reading all of its input breaks the pipe.
      child.stdin.on("error", () => {})
      if (input !== undefined) child.stdin.end(input)
      const end = once(child, "close").then(([code]): Result => ({ code: code as number | null, ...printed }))
      const waitFor = (pattern: RegExp) =>
        new Promise<void>((resolve, reject) => {
          changed = () => {
            if (pattern.test(printed.stdout + printed.stderr)) resolve()
          }
          changed()
          void end.then((result) => reject(new Error(`${pattern.source} was never printed: ${JSON.stringify(result)}`)))
        })
      return {
        process: child,
        waitFor: (pattern: RegExp) => Effect.promise(() => waitFor(pattern)),
        printed: Effect.sync(() => printed.stdout),
        logged: Effect.sync(() => printed.stderr),
        end: Effect.promise(() => end),
        stop: (signal: NodeJS.Signals) =>
          Effect.promise(() => {
            child.kill(signal)
            return end
          })
      }
    }),
    ({ end, process }) =>
      Effect.suspend(() => {
        if (process.exitCode === null && process.signalCode === null) process.kill("SIGKILL")
        return end
      })
  )

/** Runs the program to its end. */
export const run = (program: string, args: ReadonlyArray<string>, options: Options = {}): Effect.Effect<Result> =>
  Effect.scoped(Effect.flatMap(start(program, args, { input: "", ...options }), ({ end }) => end))
