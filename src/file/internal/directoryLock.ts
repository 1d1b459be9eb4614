/**
 * A lock on a directory against other processes. It ends with its holder, however that ends.
 *
 * A process that wants the lock puts a file named by its identity into `.lock`, then lists that directory. It has the
 * lock if no other file belongs to a living process. Two processes can both withdraw but never both hold the lock: the
 * one that put its file last sees the other's. Whoever sees a file of a dead process removes it. No name is used twice,
 * so nobody removes another's file by mistake.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import { randomUUID } from "node:crypto"
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import { setTimeout } from "node:timers/promises"
import * as LivingProcess from "../../node/livingProcess.js"
import * as Files from "./files.js"

/** Somebody else holds the lock. */
export class DirectoryLocked extends Data.TaggedError("DirectoryLocked")<{ readonly message: string }> {}

/**
 * Takes the lock and returns its file. The lock is held as long as the file exists; removing it releases the lock.
 */
export const acquire = (directory: string): Effect.Effect<string, DirectoryLocked | Files.FileError> =>
  Effect.uninterruptible(Effect.flatMap(identity, (self) => attemptAcquire(directory, self, 2)))

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

interface Identity {
  readonly pid: number
  /** When the process started, which tells it from an earlier one with its pid: ticks since the boot. */
  readonly started: string
  /** Which run of the machine the pid belongs to. */
  readonly boot: string
  /** The namespace of the pid: a container has its own. */
  readonly namespace: string
  /** Percent-encoded. */
  readonly host: string
}

const encode = ({ boot, host, namespace, pid, started }: Identity): string =>
  [pid, started, boot, namespace, randomUUID().slice(0, 8), host].join(".")

const decode = (name: string): Identity | undefined => {
  const match = /^(\d+)\.(\d+)\.([0-9a-f-]+)\.(\d+)\.[0-9a-f]+\.(.*)$/.exec(name)
  return match === null
    ? undefined
    : { pid: Number(match[1]), started: match[2]!, boot: match[3]!, namespace: match[4]!, host: match[5]! }
}

const identity: Effect.Effect<Identity> = Effect.promise(async () => ({
  pid: process.pid,
  started: (await LivingProcess.startOf(process.pid)) ?? LivingProcess.untold,
  boot: await LivingProcess.boot(),
  namespace: await LivingProcess.namespace(),
  host: encodeURIComponent(Os.hostname())
}))

type State = "runs" | "dead" | "unknown"

const judge = async (other: Identity | undefined, self: Identity): Promise<State> => {
  if (other?.host !== self.host) return "unknown"
  if (LivingProcess.differ(other.boot, self.boot)) return "dead"
  if (other.namespace !== self.namespace) return "unknown"
  const started = await LivingProcess.startOf(other.pid)
  return started === undefined || LivingProcess.differ(started, other.started) ? "dead" : "runs"
}

interface Other {
  readonly state: "runs" | "unknown"
  readonly message: string
}

/** Finds another process that holds or wants the lock. Removes the files of dead ones. */
const findOther = async (directory: string, own: string, self: Identity): Promise<Other | undefined> => {
  const locks = Path.dirname(own)
  for (const name of await Fs.readdir(locks)) {
    const file = Path.join(locks, name)
    if (file === own) continue
    const other = decode(name)
    const state = await judge(other, self)
    if (state === "dead") {
      await Fs.rm(file, { force: true })
    } else if (state === "runs") {
      const which = other?.pid === self.pid ? "this process" : "process"
      return { state, message: `The directory ${directory} is in use by ${which} ${other?.pid}` }
    } else {
      const holder = other === undefined ? "something" : `process ${other.pid} on host ${other.host}`
      return {
        state,
        message: `The directory ${directory} is locked by ${holder}, which cannot be judged from here: if it no longer runs, delete ${file}`
      }
    }
  }
  return undefined
}

/** With a link, locks would be made and removed at its target. */
const ensureDirectory = (path: string): Effect.Effect<void, Files.FileError> =>
  Effect.flatMap(
    Files.attempt(() => Fs.lstat(path)),
    (found) =>
      found.isDirectory()
        ? Effect.void
        : new Files.FileError({ code: "ENOTDIR", message: `${path} is no directory: move it away`, cause: undefined })
  )

const attemptAcquire = (
  directory: string,
  self: Identity,
  retries: number
): Effect.Effect<string, DirectoryLocked | Files.FileError> =>
  Effect.gen(function* () {
    const locks = Path.join(directory, ".lock")
    // Not recursive: a feed directory that is gone must stay gone.
    yield* Effect.catchIf(
      Files.attempt(() => Fs.mkdir(locks, 0o700)),
      (error) => error.code === "EEXIST",
      () => ensureDirectory(locks)
    )
    const own = Path.join(locks, encode(self))
    yield* Files.attempt(() => Fs.writeFile(own, "", { flag: "wx", mode: 0o600 }))
    const other = yield* Effect.onError(
      Files.attempt(() => findOther(directory, own, self)),
      () => Effect.ignoreLogged(Files.remove(own))
    )
    if (other === undefined) return own
    yield* Files.remove(own)
    if (other.state === "unknown" || retries === 0) return yield* new DirectoryLocked(other)
    // It may want the lock too and withdraw as well. The pause is in real time, as the other process is.
    const pause = yield* Random.nextIntBetween(20, 100)
    yield* Effect.promise(() => setTimeout(pause))
    return yield* attemptAcquire(directory, self, retries - 1)
  })
