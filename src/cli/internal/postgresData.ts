/** What is kept in the directory of an embedded PostgreSQL. */
import { randomBytes } from "node:crypto"
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import { type Account, type Binaries, run } from "./postgresBinaries.js"
import { isAlive, readIfPresent } from "./processes.js"

/** The name of the superuser, and of the database. */
export const owner = "controlpublish"

/** The files of a directory. */
export interface Place {
  readonly directory: string
  readonly data: string
  readonly password: string
  readonly log: string
  readonly users: string
  readonly lock: string
}

/** What a server writes about itself. */
export interface Server {
  readonly pid: number
  readonly port: number
  /** Whether it accepts connections: it neither starts, recovers nor stops. */
  readonly ready: boolean
}

/** Makes the directory where it is missing. */
export const prepare = async (path: string): Promise<Place> => {
  await Fs.mkdir(path, { recursive: true })
  const directory = await Fs.realpath(path)
  const at = (file: string) => Path.join(directory, file)
  await Fs.mkdir(at("users"), { recursive: true })
  await Fs.mkdir(at("lock"), { recursive: true })
  return {
    directory,
    data: at("postgres"),
    password: at("password"),
    log: at("postgres.log"),
    users: at("users"),
    lock: at("lock")
  }
}

/** Whether the data is there. */
export const isInitialised = async (place: Place): Promise<boolean> =>
  (await readIfPresent(Path.join(place.data, "PG_VERSION"))) !== undefined

/** Makes the data aside and moves it into place at the very end, so that what is in place is whole. */
export const initialise = async (
  place: Place,
  { initdb, postgres }: Binaries,
  account: Account,
  signal: AbortSignal
): Promise<void> => {
  const prefix = "initdb-"
  const remove = (directory: string) => Fs.rm(directory, { recursive: true, force: true, maxRetries: 5 })
  for (const file of await Fs.readdir(place.directory)) {
    if (file.startsWith(prefix)) await remove(Path.join(place.directory, file))
  }
  const aside = await Fs.mkdtemp(Path.join(place.directory, prefix))
  try {
    const data = Path.join(aside, "data")
    const passwordFile = Path.join(aside, "password")
    const password = randomBytes(24).toString("base64url")
    await Fs.writeFile(passwordFile, password, { mode: 0o600 })
    if (account.owner !== undefined) {
      for (const file of [aside, passwordFile]) await Fs.chown(file, account.owner.uid, account.owner.gid)
    }
    const locale = ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    const access = [`--username=${owner}`, `--pwfile=${passwordFile}`, "--auth=scram-sha-256"]
    await run(account, initdb, [`--pgdata=${data}`, ...locale, ...access], { signal })
    // Without a server: there is no createdb among the binaries, and nothing to stop afterwards.
    const single = ["--single", "-D", data, "-c", "exit_on_error=true", "postgres"]
    await run(account, postgres, single, { signal, input: `CREATE DATABASE ${owner}\n` })
    await Fs.rm(place.password, { force: true })
    await Fs.writeFile(place.password, password, { mode: 0o600, flag: "wx" })
    await Fs.rename(data, place.data)
  } finally {
    await remove(aside).catch(() => {})
  }
}

const pidFile = (place: Place): string => Path.join(place.data, "postmaster.pid")

/** Lines: pid, data directory, start time, port, socket directory, listen address, shared memory, status. */
const readPidFile = async (place: Place): Promise<Server | undefined> => {
  const lines = (await readIfPresent(pidFile(place)))?.split("\n")
  return lines && { pid: Number(lines[0]), port: Number(lines[3]), ready: lines[7]?.trim() === "ready" }
}

/** Whether the process that a pid file names is the server and not a later process with the same pid. */
const isServer = async (pid: number, place: Place): Promise<boolean> => {
  if (!(pid > 0) || !(await isAlive(pid))) return false
  const args = (await readIfPresent(`/proc/${pid}/cmdline`))?.split("\0")
  if (args === undefined) return process.platform !== "linux"
  if (Path.basename(args[0] ?? "") !== "postgres") return false
  // In doubt it is: the directory may have been moved since.
  const [theirs, ours] = await Promise.all(
    [args[args.indexOf("-D") + 1] ?? "", place.data].map((data) => Fs.stat(data).catch(() => undefined))
  )
  return theirs === undefined || (theirs.ino === ours?.ino && theirs.dev === ours.dev)
}

/** The server of the directory, whoever has started it. */
export const findServer = async (place: Place): Promise<Server | undefined> => {
  const file = await readPidFile(place)
  return file !== undefined && (await isServer(file.pid, place)) ? file : undefined
}

/**
 * To be done before a start: PostgreSQL takes a pid that is in use for a running server, even where another process has
 * got it since a crash.
 */
export const removeStalePidFile = async (place: Place): Promise<void> => {
  const file = await readPidFile(place)
  if (file !== undefined && !(await isServer(file.pid, place))) await Fs.rm(pidFile(place), { force: true })
}
