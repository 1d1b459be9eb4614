import { spawn, type ChildProcess } from "node:child_process"
import { once } from "node:events"
import { createWriteStream } from "node:fs"

/** A process that can be killed and started again. */
export interface Program {
  readonly isRunning: () => boolean
  readonly start: () => void
  /** Answers when it is gone. */
  readonly end: (signal: NodeJS.Signals) => Promise<void>
}

/** `controlpublish` with arguments and settings, its output in a file. */
export const program = (
  args: ReadonlyArray<string>,
  options: { readonly cwd: string; readonly env: Readonly<Record<string, string>>; readonly log: string }
): Program => {
  const { HOME = "/", PATH = "" } = process.env
  let child: ChildProcess | undefined
  const isRunning = () => child !== undefined && child.exitCode === null && child.signalCode === null
  return {
    isRunning,
    start: () => {
      if (isRunning()) return
      const log = createWriteStream(options.log, { flags: "a" })
      child = spawn(process.execPath, [...args], { cwd: options.cwd, env: { HOME, PATH, ...options.env } })
      child.stdout!.pipe(log, { end: false })
      child.stderr!.pipe(log, { end: false })
    },
    end: async (signal) => {
      if (child === undefined || !isRunning()) return
      const exit = once(child, "exit")
      child.kill(signal)
      await exit
    }
  }
}
