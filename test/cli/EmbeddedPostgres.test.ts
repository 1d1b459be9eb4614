import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Redacted, Schedule, Scope } from "effect"
import * as Esbuild from "esbuild"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import pg from "pg"
import * as EmbeddedPostgres from "../../src/cli/EmbeddedPostgres.js"
import * as Processes from "../../src/cli/internal/processes.js"

const root = fileURLToPath(new URL("../..", import.meta.url))
const isRoot = process.getuid?.() === 0

// What runs in processes of its own: starts, prints the url, leaves at the first input.
const program = `
  import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
  import * as Effect from "effect/Effect"
  import * as Redacted from "effect/Redacted"
  import { once } from "node:events"
  import { start } from "./src/cli/EmbeddedPostgres.ts"
  NodeRuntime.runMain(Effect.scoped(Effect.gen(function* () {
    const { url } = yield* start({ directory: process.argv[2] })
    console.log(Redacted.value(url))
    yield* Effect.promise(() => once(process.stdin, "data"))
    process.stdin.destroy()
  })))`

// The folder of that program, below the project so that the packages are found from there.
let bundle = ""

beforeAll(async () => {
  bundle = await Fs.mkdtemp(Path.join(root, "node_modules", ".embedded-postgres-test-"))
  await Esbuild.build({
    stdin: { contents: program, resolveDir: root },
    outfile: Path.join(bundle, "child.mjs"),
    bundle: true,
    packages: "external",
    platform: "node",
    format: "esm"
  })
})

afterAll(() => Fs.rm(bundle, { recursive: true, force: true }))

/** The pid of the server that runs in the directory. */
const serverOf = async (directory: string): Promise<number | undefined> => {
  const file = await Processes.readIfPresent(Path.join(directory, "postgres", "postmaster.pid"))
  const pid = Number(file?.split("\n")[0])
  return file !== undefined && (await Processes.isAlive(pid)) ? pid : undefined
}

const isGone = async (pid: number | undefined) => pid !== undefined && !(await Processes.isAlive(pid))

/** A directory for one test. At the end nothing may run in it. */
const inDirectory = <A, E>(use: (directory: string) => Effect.Effect<A, E, Scope.Scope>, mode = 0o755) =>
  Effect.acquireUseRelease(
    Effect.promise(async () => {
      const parent = await Fs.realpath(await Fs.mkdtemp(Path.join(Os.tmpdir(), "embedded-postgres-")))
      await Fs.chmod(parent, mode)
      return parent
    }),
    (parent) =>
      Effect.gen(function* () {
        const directory = Path.join(parent, ".controlpublish")
        yield* Effect.scoped(use(directory))
        assert.isUndefined(yield* Effect.promise(() => serverOf(directory)), "a server was left behind")
      }),
    (parent) =>
      Effect.promise(async () => {
        const pid = await serverOf(Path.join(parent, ".controlpublish"))
        if (pid !== undefined) process.kill(pid, "SIGKILL")
        await Fs.rm(parent, { recursive: true, force: true, maxRetries: 20 })
      })
  )

const server = (directory: string) => Effect.promise(() => serverOf(directory))

const query = (url: string, sql: string) =>
  Effect.promise(async () => {
    const client = new pg.Client({ connectionString: url })
    await client.connect()
    const { rows } = await client.query({ text: sql, rowMode: "array" }).finally(() => client.end())
    return rows as ReadonlyArray<ReadonlyArray<unknown>>
  })

/** What `use` answers, from a server that is left afterwards. */
const using = <A, E, R>(directory: string, use: (url: string) => Effect.Effect<A, E, R>) =>
  EmbeddedPostgres.start({ directory }).pipe(
    Effect.flatMap(({ url }) => use(Redacted.value(url))),
    Effect.scoped
  )

interface Child {
  readonly process: ChildProcess
  readonly url: string
  readonly leave: Effect.Effect<void>
  readonly kill: Effect.Effect<void>
}

/** Another process that has started the server of the directory. */
const child = (directory: string, folder = bundle): Effect.Effect<Child, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, [Path.join(folder, "child.mjs"), directory], { stdio: ["pipe", "pipe", "inherit"] })
    ),
    (process) => Effect.sync(() => process.kill("SIGKILL"))
  ).pipe(
    Effect.flatMap((process) =>
      Effect.promise(async () => {
        const exit = once(process, "exit")
        const [line] = (await Promise.race([once(process.stdout, "data"), exit])) as ReadonlyArray<unknown>
        return {
          process,
          url: String(line).trim(),
          leave: Effect.promise(async () => {
            process.stdin.write("leave\n")
            assert.deepStrictEqual(await exit, [0, null])
          }),
          kill: Effect.promise(() => (process.kill("SIGKILL"), exit))
        }
      })
    )
  )

describe("EmbeddedPostgres", { timeout: 300_000 }, () => {
  it.live("keeps the data from one start to the next", () =>
    inDirectory((directory) =>
      Effect.gen(function* () {
        const first = yield* using(directory, (url) =>
          Effect.gen(function* () {
            yield* query(url, "CREATE TABLE kept AS SELECT 'ä' AS value")
            const settings = `SELECT current_user, current_setting('listen_addresses'), current_setting('fsync'), pg_encoding_to_char(encoding), datlocprovider, datlocale
              FROM pg_database WHERE datname = current_database()`
            assert.deepStrictEqual(yield* query(url, settings), [
              ["controlpublish", "127.0.0.1", "on", "UTF8", "b", "C.UTF-8"]
            ])
            const wrong = yield* Effect.exit(query(url.replace(/:[^:]+@/, ":wrong@"), "SELECT 1"))
            assert.isTrue(Exit.isFailure(wrong), "any password is accepted")
            return yield* server(directory)
          })
        )
        assert.isTrue(yield* Effect.promise(() => isGone(first)))
        const { mode } = yield* Effect.promise(() => Fs.stat(Path.join(directory, "password")))
        assert.strictEqual(mode & 0o777, 0o600)
        const kept = yield* using(directory, (url) => query(url, "SELECT value FROM kept"))
        assert.deepStrictEqual(kept, [["ä"]])
      })
    )
  )

  it.live("is shared by processes that start at once, and stopped by the last", () =>
    inDirectory((directory) =>
      Effect.gen(function* () {
        const [first, second] = yield* Effect.all([child(directory), child(directory)], { concurrency: 2 })
        const pid = yield* server(directory)
        assert.strictEqual(first.url, second.url)
        yield* first.leave
        yield* query(second.url, "SELECT 1")
        assert.strictEqual(yield* server(directory), pid)
        yield* second.leave
        assert.isTrue(yield* Effect.promise(() => isGone(pid)))
      })
    )
  )

  it.live("outlives the process that started it, also a Ctrl-C, for the sake of the others", () =>
    inDirectory((directory) =>
      Effect.gen(function* () {
        const owner = yield* child(directory)
        const pid = yield* server(directory)
        if (process.platform === "linux") {
          const stat = yield* Effect.promise(() => Fs.readFile(`/proc/${pid}/stat`, "utf8"))
          assert.strictEqual(stat.split(" ")[5], String(pid), "not in a session of its own")
        }
        const other = yield* child(directory)
        yield* owner.kill
        yield* query(other.url, "SELECT 1")
        yield* other.leave
        assert.isTrue(yield* Effect.promise(() => isGone(pid)))
      })
    )
  )

  it.live("is joined again, and then stopped, after all its users were killed", () =>
    inDirectory((directory) =>
      Effect.gen(function* () {
        const users = yield* Effect.all([child(directory), child(directory)], { concurrency: 2 })
        const pid = yield* server(directory)
        yield* Effect.forEach(users, (user) => user.kill)
        assert.strictEqual(yield* server(directory), pid)
        const joined = yield* using(directory, () => server(directory))
        assert.strictEqual(joined, pid)
        assert.isTrue(yield* Effect.promise(() => isGone(pid)))
      })
    )
  )

  it.live("recovers from a crash of the server, also when its pid is another process's now", () =>
    inDirectory((directory) =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const { url } = yield* EmbeddedPostgres.start({ directory }).pipe(Scope.extend(scope))
        yield* query(Redacted.value(url), "CREATE TABLE kept AS SELECT 1 AS value")
        const crash = Effect.gen(function* () {
          const pid = yield* server(directory)
          process.kill(pid!, "SIGKILL")
          yield* Effect.promise(() => isGone(pid)).pipe(Effect.repeat({ until: (gone) => gone }))
        })
        yield* crash
        assert.deepStrictEqual(yield* using(directory, (url) => query(url, "SELECT value FROM kept")), [[1]])
        yield* crash
        if (process.platform === "linux") {
          // A process of the server's own user would make PostgreSQL refuse to start.
          const { uid } = yield* Effect.promise(() => Fs.stat(Path.join(directory, "postgres")))
          const sleeper = spawn("sleep", ["60"], isRoot ? { uid } : {})
          yield* Effect.addFinalizer(() => Effect.sync(() => sleeper.kill()))
          const file = Path.join(directory, "postgres", "postmaster.pid")
          const content = yield* Effect.promise(() => Fs.readFile(file, "utf8"))
          yield* Effect.promise(() => Fs.writeFile(file, content.replace(/^\d+/, String(sleeper.pid))))
        }
        assert.deepStrictEqual(yield* using(directory, (url) => query(url, "SELECT value FROM kept")), [[1]])
        yield* Scope.close(scope, Exit.void)
      })
    )
  )

  it.live("is there for whoever starts it while the last one stops it", () =>
    inDirectory((directory) =>
      Effect.gen(function* () {
        const servers = new Set<number | undefined>()
        const enter = Effect.gen(function* () {
          const scope = yield* Scope.make()
          const { url } = yield* EmbeddedPostgres.start({ directory }).pipe(Scope.extend(scope))
          servers.add(yield* server(directory))
          return { leave: Scope.close(scope, Exit.void), url: Redacted.value(url) }
        })
        let last = yield* enter
        for (const delay of [0, 2, 5, 10, 20, 40, 60, 100, 200]) {
          const [, next] = yield* Effect.all([last.leave, Effect.delay(enter, delay)], { concurrency: 2 })
          yield* query(next.url, "SELECT 1")
          last = next
        }
        yield* last.leave
        assert.isAbove(servers.size, 1, "the server was never stopped: nothing was tested")
      })
    )
  )

  it.live("ignores what killed processes have left", () =>
    inDirectory((directory) =>
      Effect.gen(function* () {
        const write = (file: string) =>
          Effect.promise(async () => {
            await Fs.mkdir(Path.dirname(Path.join(directory, file)), { recursive: true })
            await Fs.writeFile(Path.join(directory, file), "")
          })
        // A pid that is in use, by a process born later than the owner of the file; and one that no process has.
        const reused = process.platform === "linux" ? `${process.pid}.1-cafecafe.x` : `${2 ** 22 + 1}.0.x`
        for (const owner of [reused, `${2 ** 22 + 2}.1-cafecafe.x`]) {
          yield* write(`users/${owner}`)
          yield* write(`lock/${owner}`)
          yield* write(`lock/${owner}.1`)
        }
        yield* write("initdb-killed/data/PG_VERSION")
        yield* using(directory, (url) => query(url, "SELECT 1"))
        const files = yield* Effect.promise(() => Fs.readdir(directory, { recursive: true }))
        const left = files.filter((file) => !file.startsWith("postgres/"))
        assert.deepStrictEqual(left.sort(), ["lock", "password", "postgres", "postgres.log", "superuser", "users"])
      })
    )
  )

  it.live("leaves nothing when it is interrupted while it starts", () =>
    inDirectory((directory) =>
      Effect.gen(function* () {
        const interruptAt = (reached: () => Promise<boolean>) =>
          Effect.gen(function* () {
            const fiber = yield* Effect.fork(using(directory, () => Effect.never))
            yield* Effect.promise(reached).pipe(
              Effect.repeat({ until: (reached) => reached, schedule: Schedule.spaced("1 millis") })
            )
            yield* Fiber.interrupt(fiber)
            // A server that has just been launched needs a moment to show up.
            yield* Effect.sleep("300 millis")
            assert.isUndefined(yield* server(directory))
            const files = yield* Effect.promise(() => Fs.readdir(directory))
            assert.deepStrictEqual(
              files.filter((file) => file.startsWith("initdb")),
              []
            )
          })
        const files = () => Fs.readdir(directory).catch((): Array<string> => [])
        yield* interruptAt(async () => (await files()).some((file) => file.startsWith("initdb")))
        yield* interruptAt(async () => (await files()).includes("postgres.log"))
        yield* using(directory, (url) => query(url, "SELECT 1"))
      })
    )
  )

  it.live("says in one line why it cannot start", () =>
    inDirectory((directory) =>
      Effect.gen(function* () {
        const password = Path.join(directory, "password")
        const version = Path.join(directory, "postgres", "PG_VERSION")
        const fails = (reason: RegExp) =>
          Effect.gen(function* () {
            const error = yield* Effect.flip(using(directory, () => Effect.void))
            assert.instanceOf(error, EmbeddedPostgres.EmbeddedPostgresError)
            assert.match(error.message, reason)
            assert.notInclude(error.message, "\n")
          })
        yield* using(directory, () => Effect.void)
        yield* Effect.promise(() => Fs.writeFile(version, "12\n"))
        yield* fails(/initialized by PostgreSQL version 12/)
        yield* Effect.promise(() => Fs.writeFile(version, "18\n"))
        yield* Effect.promise(() => Fs.writeFile(password, "wrong"))
        yield* fails(/password authentication failed/)
        yield* Effect.promise(() => Fs.rm(password))
        yield* fails(/password/)
      })
    )
  )

  it.live("works in a clone where no install script has run; as root also where no other user has access", () =>
    inDirectory((directory) => {
      const clone = Path.dirname(directory)
      return Effect.gen(function* () {
        yield* Effect.promise(async () => {
          const modules = Path.join(root, "node_modules")
          for (const name of ["effect", "pg", "@effect"]) {
            await Fs.mkdir(Path.join(clone, "node_modules"), { recursive: true })
            await Fs.symlink(Path.join(modules, name), Path.join(clone, "node_modules", name))
          }
          for (const name of ["embedded-postgres", "@embedded-postgres"]) {
            await Fs.cp(Path.join(modules, name), Path.join(clone, "node_modules", name), {
              recursive: true,
              filter: async (file) => !(await Fs.lstat(file)).isSymbolicLink()
            })
          }
          for (const file of await Fs.readdir(Path.join(clone, "node_modules"), { recursive: true })) {
            if (/native.bin.\w+$/.test(file)) await Fs.chmod(Path.join(clone, "node_modules", file), 0o644)
          }
          await Fs.copyFile(Path.join(bundle, "child.mjs"), Path.join(clone, "child.mjs"))
        })
        const users = yield* Effect.all([child(directory, clone), child(directory, clone)], { concurrency: 2 })
        yield* Effect.forEach(users, ({ url }) => query(url, "SELECT 1"))
        const { mode, uid } = yield* Effect.promise(() => Fs.stat(Path.join(directory, "postgres")))
        assert.strictEqual(mode & 0o777, 0o700)
        assert.notStrictEqual(uid, 0)
        const pid = yield* server(directory)
        yield* Effect.forEach(users, ({ leave }) => leave)
        assert.isTrue(yield* Effect.promise(() => isGone(pid)))
        // Started once more, now that the data is there.
        yield* Effect.flatMap(child(directory, clone), ({ leave }) => leave)
        if (isRoot) {
          // Data that an earlier version has left where only a capability led moves along, also from halfway.
          const data = Path.join(directory, "postgres")
          const home = yield* Effect.promise(() => Fs.realpath(data))
          yield* Effect.addFinalizer(() =>
            Effect.promise(() => Fs.rm(Path.dirname(home), { recursive: true, force: true, maxRetries: 20 }))
          )
          yield* Effect.flatMap(child(directory, clone), ({ leave, url }) =>
            Effect.zipRight(query(url, "CREATE TABLE kept AS SELECT 1 AS value"), leave)
          )
          yield* Effect.promise(async () => {
            await Fs.rm(data)
            await Fs.rename(home, `${data}.moved`)
          })
          const moved = yield* child(directory, clone)
          assert.deepStrictEqual(yield* query(moved.url, "SELECT value FROM kept"), [[1]])
          assert.isTrue(yield* Effect.promise(async () => (await Fs.lstat(data)).isSymbolicLink()))
          yield* moved.leave
        }
      })
    }, 0o700)
  )

  it.live("knows no secret of the process that started it", () =>
    inDirectory((directory) =>
      Effect.gen(function* () {
        process.env.ADMIN_TOKEN = "planted-admin-token"
        process.env.NATS_PASSWORD = "planted-nats-password"
        yield* Effect.addFinalizer(() =>
          Effect.sync(() => {
            delete process.env.ADMIN_TOKEN
            delete process.env.NATS_PASSWORD
          })
        )
        yield* EmbeddedPostgres.start({ directory })
        const pid = yield* server(directory)
        const environ = yield* Effect.promise(() => Fs.readFile(`/proc/${pid}/environ`, "utf8"))
        assert.include(environ, "LC_ALL=C")
        assert.notInclude(environ, "planted")
      })
    )
  )

  it.live("gives the application a role that is no superuser, and owns its database", () =>
    inDirectory((directory) =>
      Effect.gen(function* () {
        const { superuserUrl, url } = yield* EmbeddedPostgres.start({ directory })
        const role =
          "SELECT current_user::text, rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user"
        assert.deepStrictEqual(yield* query(Redacted.value(url), role), [["controlpublish", false, false, false]])
        assert.deepStrictEqual(yield* query(Redacted.value(superuserUrl), role), [["postgres", true, true, true]])
        const sockets = yield* query(Redacted.value(superuserUrl), "SHOW unix_socket_directories")
        assert.deepStrictEqual(sockets, [[""]])
        yield* query(Redacted.value(url), "CREATE SCHEMA its_own")
        const program = "COPY (SELECT 1) TO PROGRAM 'true'"
        const refused = yield* Effect.flip(Effect.sandbox(query(Redacted.value(url), program)))
        assert.match(Cause.pretty(refused), /permission denied/)
        const { mode } = yield* Effect.promise(() => Fs.stat(Path.join(directory, "superuser")))
        assert.strictEqual(mode & 0o777, 0o600)
      })
    )
  )

  it.live("takes the superuser's rights from the application of a directory of before", () =>
    inDirectory((directory) =>
      Effect.gen(function* () {
        const password = yield* using(directory, (url) => Effect.succeed(new URL(url).password))
        // As versions before made it: the application's role is the superuser that initdb made, and owns all.
        yield* Effect.scoped(
          Effect.gen(function* () {
            const { superuserUrl } = yield* EmbeddedPostgres.start({ directory })
            const root = Redacted.value(superuserUrl)
            yield* query(root, "CREATE ROLE other LOGIN SUPERUSER PASSWORD 'other'")
            yield* query(root, "ALTER DATABASE controlpublish OWNER TO postgres")
            yield* query(root, "DROP ROLE controlpublish")
            const other = new URL(root)
            other.username = "other"
            other.password = "other"
            yield* query(other.href, "ALTER ROLE postgres RENAME TO controlpublish")
            yield* query(other.href, `ALTER ROLE controlpublish PASSWORD '${password}'`)
            const before = new URL(root)
            before.username = "controlpublish"
            before.password = password
            yield* query(before.href, "DROP ROLE other")
            yield* query(before.href, "CREATE TABLE kept (id bigserial PRIMARY KEY, value int)")
            yield* query(before.href, "CREATE SCHEMA ours")
            yield* query(before.href, "CREATE FUNCTION ours.two() RETURNS int LANGUAGE sql AS 'SELECT 2'")
            yield* Effect.promise(() => Fs.rm(Path.join(directory, "superuser")))
          })
        )
        for (const start of ["first", "second"]) {
          yield* using(directory, (url) =>
            Effect.gen(function* () {
              assert.strictEqual(new URL(url).password, password, start)
              yield* query(url, "INSERT INTO kept (value) VALUES (1)")
              yield* query(url, "ALTER TABLE kept ALTER value SET DEFAULT 1")
              yield* query(url, "CREATE OR REPLACE FUNCTION ours.two() RETURNS int LANGUAGE sql AS 'SELECT 2'")
              assert.deepStrictEqual(yield* query(url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"), [
                [false]
              ])
            })
          )
        }
      })
    )
  )

  it.live.runIf(isRoot)("started by root runs without capabilities, and reads nothing of root's", () =>
    inDirectory(
      (directory) =>
        Effect.gen(function* () {
          yield* Effect.addFinalizer(() =>
            Effect.promise(async () => {
              const home = await Fs.realpath(Path.join(directory, "postgres"))
              await Fs.rm(Path.dirname(home), { recursive: true, force: true, maxRetries: 20 })
            })
          )
          const { superuserUrl } = yield* EmbeddedPostgres.start({ directory })
          const pid = yield* server(directory)
          const status = yield* Effect.promise(() => Fs.readFile(`/proc/${pid}/status`, "utf8"))
          for (const set of ["CapEff", "CapPrm", "CapAmb"]) assert.match(status, new RegExp(`^${set}:\\s0+$`, "m"))
          assert.match(status, /^Groups:\s*$/m)
          const root = Redacted.value(superuserUrl)
          yield* query(root, "CREATE TABLE taken (line text)")
          const copied = yield* Effect.exit(query(root, "COPY taken FROM PROGRAM 'cat /etc/shadow'"))
          assert.isTrue(Exit.isFailure(copied))
          assert.deepStrictEqual(yield* query(root, "SELECT count(*)::int FROM taken"), [[0]])
        }),
      0o700
    )
  )
})
