/** The contents of an embedded PostgreSQL's directory. */
import { randomBytes } from "node:crypto"
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import { codeOf } from "../../internal/errorCode.js"
import { type Account, type Binaries, run } from "./postgresBinaries.js"
import { isAlive, readIfPresent } from "./processes.js"

/** The role of the application, which owns the database of the same name. It is not a superuser. */
export const owner = "controlpublish"

/** The superuser of the server, for what the application's role may not do. */
export const superuser = "postgres"

/** The files of a directory. */
export interface Place {
  readonly directory: string
  readonly data: string
  /** The password of the application's role. */
  readonly password: string
  /** The password of the superuser. */
  readonly superuser: string
  readonly log: string
  readonly users: string
  readonly lock: string
}

/** The pid file that a server writes. */
export interface Server {
  readonly pid: number
  readonly port: number
  /** Whether it accepts connections: it is not starting, recovering or stopping. */
  readonly ready: boolean
}

/** Creates the directory if it is missing. */
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
    superuser: at("superuser"),
    log: at("postgres.log"),
    users: at("users"),
    lock: at("lock")
  }
}

/** Whether the data exists. */
export const isInitialised = async (place: Place): Promise<boolean> =>
  (await readIfPresent(Path.join(place.data, "PG_VERSION"))) !== undefined

const makePassword = (): string => randomBytes(24).toString("base64url")

const writeSecret = async (file: string, secret: string): Promise<void> => {
  await Fs.rm(file, { force: true })
  await Fs.writeFile(file, secret, { mode: 0o600, flag: "wx" })
}

/** Moves the data to where the server finds it: in the directory, or in its user's home with a link from there. */
const moveInto = async (place: Place, data: string, { home }: Account): Promise<void> => {
  if (home === undefined) return Fs.rename(data, place.data)
  const target = Path.join(home, "postgres")
  // The remains of an earlier start in a directory of this name: nothing links to them any more.
  await Fs.rm(target, { recursive: true, force: true })
  await Fs.rename(data, target)
  await Fs.rm(place.data, { force: true })
  await Fs.symlink(target, place.data)
}

const original = (place: Place): string => `${place.data}.moved`

/** Restores data whose move was interrupted. */
export const recover = async (place: Place): Promise<void> => {
  const isThere = await Fs.lstat(place.data).then(
    () => true,
    () => false
  )
  if (!isThere) {
    await Fs.rename(original(place), place.data).catch((error: unknown) => {
      if (codeOf(error) !== "ENOENT") throw error
    })
  }
}

/**
 * Required before a start as this account: data in a place that the user cannot enter, as earlier versions left it,
 * moves to the user's home.
 */
export const settle = async (place: Place, account: Account): Promise<void> => {
  if (account.home === undefined) return
  const data = await Fs.realpath(place.data)
  if (data.startsWith(`${account.home}${Path.sep}`)) return
  const aside = await Fs.mkdtemp(Path.join(account.home, "moving-"))
  const copy = Path.join(aside, "data")
  // Works across file systems, and keeps owners and modes. The original is removed once the copy is complete.
  await run({ ...account, options: { cwd: "/" } }, "cp", ["-a", data, copy])
  await Fs.rename(place.data, original(place))
  await moveInto(place, copy, account)
  await Fs.rm(original(place), { recursive: true, force: true })
  await Fs.rm(aside, { recursive: true, force: true })
}

/** Creates the data in another place and moves it at the very end, so that data in place is complete. */
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
  const home = account.home ?? place.directory
  const aside = await Fs.mkdtemp(Path.join(home, prefix))
  try {
    const data = Path.join(aside, "data")
    const passwordFile = Path.join(aside, "password")
    const password = makePassword()
    const superPassword = makePassword()
    await Fs.writeFile(passwordFile, superPassword, { mode: 0o600 })
    if (account.owner !== undefined) {
      for (const file of [aside, passwordFile]) await Fs.chown(file, account.owner.uid, account.owner.gid)
    }
    const locale = ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    const access = [`--username=${superuser}`, `--pwfile=${passwordFile}`, "--auth=scram-sha-256"]
    await run(account, initdb, [`--pgdata=${data}`, ...locale, ...access], { signal })
    // Uses no server: the binaries contain no createdb, and nothing has to be stopped afterwards.
    const single = ["--single", "-D", data, "-c", "exit_on_error=true", "postgres"]
    const input = `CREATE ROLE ${owner} LOGIN PASSWORD '${password}'\nCREATE DATABASE ${owner} OWNER ${owner}\n`
    await run(account, postgres, single, { signal, input })
    await writeSecret(place.superuser, superPassword)
    await writeSecret(place.password, password)
    await moveInto(place, data, account)
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

/** Whether the process of a pid file is the server, not a later process with the same pid. */
const isServer = async (pid: number, place: Place): Promise<boolean> => {
  if (!(pid > 0) || !(await isAlive(pid))) return false
  const args = (await readIfPresent(`/proc/${pid}/cmdline`))?.split("\0")
  if (args === undefined) return process.platform !== "linux"
  if (Path.basename(args[0] ?? "") !== "postgres") return false
  // If unknown, it is: the directory may have been moved since.
  const [theirs, ours] = await Promise.all(
    [args[args.indexOf("-D") + 1] ?? "", place.data].map((data) => Fs.stat(data).catch(() => undefined))
  )
  return theirs === undefined || (theirs.ino === ours?.ino && theirs.dev === ours.dev)
}

/** The server of the directory, whoever started it. */
export const findServer = async (place: Place): Promise<Server | undefined> => {
  const file = await readPidFile(place)
  return file !== undefined && (await isServer(file.pid, place)) ? file : undefined
}

/**
 * Required before a start: PostgreSQL takes a pid in use for a running server, even if another process got it since a
 * crash.
 */
export const removeStalePidFile = async (place: Place): Promise<void> => {
  const file = await readPidFile(place)
  if (file !== undefined && !(await isServer(file.pid, place))) await Fs.rm(pidFile(place), { force: true })
}
