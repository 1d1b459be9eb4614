/**
 * Agreement between processes of one machine through files. A process killed at any point leaves nothing to repair:
 * each file has one owner, named in the file's name, and counts only while that process lives.
 */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { randomUUID } from "node:crypto"
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import { codeOf } from "../../internal/errorCode.js"
import * as LivingProcess from "../../node/livingProcess.js"

/** The text of a file. `undefined` if the file does not exist (or, in `/proc`, the process has ended). */
export const readIfPresent = (file: string): Promise<string | undefined> =>
  Fs.readFile(file, "utf8").catch((error: unknown) => {
    if (["ENOENT", "ENOTDIR", "ESRCH"].includes(codeOf(error) ?? "")) return undefined
    throw error
  })

export { signal } from "../../node/livingProcess.js"

/** Distinguishes a living process from an earlier one with its pid. `undefined` if no such process runs. */
export const birthOf = async (pid: number): Promise<string | undefined> => {
  const started = await LivingProcess.startOf(pid)
  if (started === undefined || started === LivingProcess.untold) return started
  return `${started}-${(await LivingProcess.boot()).slice(0, 8)}`
}

/** Whether the process runs. */
export const isAlive = async (pid: number): Promise<boolean> => (await birthOf(pid)) !== undefined

/** Whether the process with this birth runs. */
export const isBorn = async (pid: number, birth: string): Promise<boolean> => {
  const now = await birthOf(pid)
  return now === birth || now === LivingProcess.untold
}

/** Creates a file of this process in the directory and returns its name: `<pid>.<birth>.<unique>`. */
export const claim = async (directory: string): Promise<string> => {
  const name = `${process.pid}.${await birthOf(process.pid)}.${randomUUID()}`
  await Fs.writeFile(Path.join(directory, name), "", { flag: "wx" })
  return name
}

/** The files of living processes. Removes those of dead ones: names are never reused, so any process may. */
export const claims = async (directory: string): Promise<ReadonlyArray<string>> => {
  const living: Array<string> = []
  for (const name of await Fs.readdir(directory)) {
    const [pid, birth] = name.split(".")
    if (await isBorn(Number(pid), birth ?? "")) living.push(name)
    else await Fs.rm(Path.join(directory, name), { force: true })
  }
  return living
}

/** The number of a claim in the queue for a lock. A process that has yet to draw one has 0, ahead of all. */
const numberOf = (name: string): number => Number(name.split(".")[3] ?? 0)

const drawTicket = async (directory: string): Promise<string> => {
  const name = await claim(directory)
  try {
    const ticket = `${name}.${1 + Math.max(...(await claims(directory)).map(numberOf))}`
    await Fs.rename(Path.join(directory, name), Path.join(directory, ticket))
    return ticket
  } catch (error) {
    await Fs.rm(Path.join(directory, name), { force: true })
    throw error
  }
}

const isFirst = async (directory: string, ticket: string): Promise<boolean> =>
  (await claims(directory)).every((name) => {
    const lead = numberOf(name) - numberOf(ticket)
    return lead > 0 || (lead === 0 && name >= ticket)
  })

/**
 * Holds the lock of the directory until the scope closes, against other processes and other fibers of this one. It is
 * Lamport's bakery algorithm: first come, first served, and a process that dies leaves the queue. The wait has no
 * timeout.
 */
export const lock = (directory: string): Effect.Effect<void, Cause.UnknownException, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.tryPromise(() => drawTicket(directory)),
    (ticket) => Effect.promise(() => Fs.rm(Path.join(directory, ticket), { force: true }))
  ).pipe(
    Effect.flatMap((ticket) =>
      Effect.repeat(
        Effect.tryPromise(() => isFirst(directory, ticket)),
        { until: (first) => first, schedule: Schedule.spaced("50 millis") }
      )
    ),
    Effect.asVoid
  )
