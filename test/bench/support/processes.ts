import { build } from "esbuild"
import { spawn, type ChildProcess } from "node:child_process"
import { once } from "node:events"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { createInterface } from "node:readline"
import type { Result, Task } from "./contestant.js"

// npm runs scripts in the project's directory.
const directory = "test/bench"

/** Bundles a program for plain node. Its packages are those of the benchmark, or of the project. */
export const bundle = async (entry: string): Promise<string> => {
  const outfile = join(directory, "node_modules", ".cache", `${entry.replaceAll(/\W/g, "_")}.mjs`)
  await build({
    entryPoints: [join(directory, entry)],
    outfile,
    bundle: true,
    packages: "external",
    platform: "node",
    format: "esm",
    target: "node20"
  })
  return outfile
}

const programs = new Map<string, Promise<string>>()

export const program = (entry: string): Promise<string> => {
  const known = programs.get(entry) ?? bundle(entry)
  programs.set(entry, known)
  return known
}

/** A contestant that is ready. With BENCH_PROFILE=DIRECTORY each leaves a CPU profile there. */
export interface Ready {
  readonly child: ChildProcess
  /** Lets it work, and answers what came of it. Can be done again. */
  readonly go: (millis?: number) => Promise<Result>
  /** Lets it end. */
  readonly end: () => Promise<void>
}

const children = new Set<ChildProcess>()

/** Ends what a row that failed has left. */
export const killAll = (): void => {
  for (const child of children) child.kill("SIGKILL")
}

export const prepare = async (entry: string, task: Task): Promise<Ready> => {
  const child = spawn(
    process.execPath,
    [
      ...(process.env.BENCH_PROFILE === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${process.env.BENCH_PROFILE}`]),
      await program(entry),
      JSON.stringify(task)
    ],
    {
      stdio: ["pipe", "pipe", "inherit"]
    }
  )
  children.add(child)
  child.once("exit", () => children.delete(child))
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = async () => {
    const line = await lines.next()
    if (line.done === true) throw new Error(`${entry} ended with ${child.exitCode ?? child.signalCode ?? "no code"}`)
    return line.value
  }
  while ((await next()) !== "ready");
  return {
    child,
    go: async (millis = 0) => {
      child.stdin.write(`go ${millis}\n`)
      return JSON.parse(await next()) as Result
    },
    end: async () => {
      const exit = once(child, "exit")
      child.stdin.end("end\n")
      await exit
    }
  }
}

/** The most memory that a process has had resident, in MB. Linux. */
export const peakMemory = async (pid: number): Promise<number> =>
  Number(/VmHWM:\s+(\d+)/.exec(await readFile(`/proc/${pid}/status`, "utf8"))![1]) / 1024

/** The CPU that a process has used, in milliseconds. Linux, whose ticks are 10 ms. */
export const cpuOf = async (pid: number): Promise<number> => {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8")
  // The name of the program may have spaces.
  const [user, system] = stat
    .slice(stat.lastIndexOf(")") + 2)
    .split(" ")
    .slice(11, 13)
    .map(Number)
  return (user! + system!) * 10
}
