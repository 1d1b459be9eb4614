/** A PostgreSQL with its tools (pg_dump, pg_restore, psql, pg_basebackup, pg_upgrade), as Debian's package installs it. */
import { Effect } from "effect"
import { execFile, execFileSync } from "node:child_process"
import { existsSync, readdirSync } from "node:fs"
import { appendFile, chown, mkdir, mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { freePort } from "./nats.js"

const root = "/usr/lib/postgresql"

const versions = (existsSync(root) ? readdirSync(root) : [])
  .map(Number)
  .filter((version) =>
    ["initdb", "pg_ctl", "pg_dump", "pg_upgrade"].every((tool) => existsSync(join(root, String(version), "bin", tool)))
  )

/** Where the newest installed version has its programs. */
const directory = join(root, String(Math.max(...versions, 0)), "bin")

const howToInstall = `no server with pg_dump and pg_upgrade in ${root}: apt-get install postgresql`

/** Whether the suites that need the tools can run. In CI they have to; elsewhere a line says that they do not. */
export const available = (): boolean => {
  const isInstalled = versions.length > 0
  if (!isInstalled && (process.env.CI ?? "") !== "") throw new Error(howToInstall)
  if (!isInstalled) console.warn(`SKIPPED: the tests with pg_dump, pg_basebackup and pg_upgrade. ${howToInstall}`)
  return isInstalled
}

/** The server refuses to run as root: then it runs as the user of the package. */
const user = (): { readonly uid?: number; readonly gid?: number } => {
  if (process.getuid?.() !== 0) return {}
  const id = (flag: string) => Number(execFileSync("id", [flag, "postgres"]).toString())
  return { uid: id("-u"), gid: id("-g") }
}

export interface Ran {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs one of the tools. */
export const run = (
  tool: string,
  args: ReadonlyArray<string>,
  options: { readonly env?: Record<string, string>; readonly cwd?: string } = {}
): Effect.Effect<Ran> =>
  Effect.promise(
    () =>
      new Promise((resolve) => {
        const { cwd = tmpdir(), env = {} } = options
        execFile(
          join(directory, tool),
          args,
          { ...user(), cwd, env: { PATH: process.env.PATH, LC_ALL: "C.UTF-8", ...env }, maxBuffer: 64 << 20 },
          (error, stdout, stderr) => {
            const code = error === null ? 0 : typeof error.code === "number" ? error.code : 1
            resolve({ code, stdout, stderr })
          }
        )
      })
  )

/** Runs one of the tools, which has to succeed. */
export const succeed = (...command: Parameters<typeof run>): Effect.Effect<string> =>
  Effect.flatMap(run(...command), ({ code, stderr, stdout }) =>
    code === 0
      ? Effect.succeed(stdout)
      : Effect.die(new Error(`${command[0]} ${command[1].join(" ")} ended with ${code}: ${stderr}${stdout}`))
  )

/** A directory that the server's user may write to, until the scope ends. */
export const workspace = Effect.acquireRelease(
  Effect.promise(async () => {
    const path = await mkdtemp(join(tmpdir(), "controlpublish-tools-"))
    const { gid, uid } = user()
    if (uid !== undefined && gid !== undefined) await chown(path, uid, gid)
    return path
  }),
  (path) => Effect.promise(() => rm(path, { recursive: true, force: true, maxRetries: 5 }))
)

export interface Server {
  readonly port: number
  readonly data: string
  readonly url: (database?: string) => string
  readonly stop: Effect.Effect<void>
}

/** Starts the server of a data directory, until the scope ends or it is stopped. */
export const start = (data: string) =>
  Effect.gen(function* () {
    const port = yield* Effect.promise(freePort)
    const log = `${data}.log`
    const options = `-p ${port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off`
    const stop = Effect.asVoid(run("pg_ctl", ["stop", "-D", data, "-m", "fast", "-w"]))
    yield* Effect.acquireRelease(succeed("pg_ctl", ["start", "-D", data, "-w", "-l", log, "-o", options]), () => stop)
    const url = (database = "postgres") => `postgres://postgres@127.0.0.1:${port}/${database}?sslmode=disable`
    return { port, data, url, stop } satisfies Server
  })

/** Makes a data directory. */
export const initialize = (data: string, settings: Record<string, string> = {}) =>
  Effect.gen(function* () {
    yield* Effect.promise(() => mkdir(join(data, ".."), { recursive: true }))
    yield* succeed("initdb", ["-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"])
    const lines = Object.entries(settings).map(([name, value]) => `${name} = '${value}'\n`)
    yield* Effect.promise(() => appendFile(join(data, "postgresql.conf"), lines.join("")))
  })

/** A server of its own. */
export const server = (settings: Record<string, string> = {}) =>
  Effect.gen(function* () {
    const data = join(yield* workspace, "data")
    yield* initialize(data, settings)
    return yield* start(data)
  })

/** The programs of the version that is there. */
export const bin = directory
