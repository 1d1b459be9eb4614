import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { execFile } from "node:child_process"
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import { promisify } from "node:util"
import * as Pg from "pg"
import { vi } from "vitest"
import * as EmbeddedPostgres from "../../src/cli/EmbeddedPostgres.js"
import { layerDatabase, TestDatabase } from "../support/postgres.js"
import * as Controlpublish from "./support/controlpublish.js"

/** The command in a working directory of its own, with the embedded database and the sink `file`. */
const command = Effect.gen(function* () {
  const program = yield* Controlpublish.Program
  const cwd = yield* Controlpublish.workingDirectory
  const options = { cwd, env: { FEED_SINK: "file", ADMIN_PORT: "0" } }
  const started = (args: ReadonlyArray<string>) =>
    Effect.tap(Controlpublish.start(program, args, options), ({ waitFor }) => waitFor(/Stop with Ctrl-C/))
  return {
    cwd,
    start: (args: ReadonlyArray<string>) => Controlpublish.start(program, args, options),
    serve: (...args: ReadonlyArray<string>) => started(["serve", ...args]),
    run: (args: ReadonlyArray<string>, input = "") => Controlpublish.run(program, args, { ...options, input }),
    feed: readFeed(Path.join(cwd, "feed")),
    /** What the database of the directory answers, once nobody else uses it. */
    query: (sql: string) =>
      EmbeddedPostgres.start({ directory: Path.join(cwd, ".controlpublish") }).pipe(
        Effect.flatMap(({ url }) => query(Redacted.value(url), sql)),
        Effect.scoped
      ),
    /** Whether the database still runs. */
    databaseRuns: Effect.promise(() =>
      Fs.access(Path.join(cwd, ".controlpublish", "postgres", "postmaster.pid")).then(
        () => true,
        () => false
      )
    )
  }
})

const query = (url: string, sql: string) =>
  Effect.promise(async () => {
    const client = new Pg.Client({ connectionString: url })
    await client.connect()
    const { rows } = await client.query(sql).finally(() => client.end())
    return rows as ReadonlyArray<Record<string, unknown>>
  })

/** The files of events in a feed. */
const list = (directory: string) =>
  Effect.promise(async () => {
    const files = await Fs.readdir(directory).catch((): Array<string> => [])
    return files.filter((file) => file.endsWith(".json") && !file.startsWith("."))
  })

/** The versions in a feed, by the event's id. */
const readFeed = (directory: string) =>
  Effect.flatMap(list(directory), (files) =>
    Effect.promise(async () => {
      const feed = new Map<string, number>()
      for (const file of files) {
        const { control_version, event_id } = JSON.parse(await Fs.readFile(Path.join(directory, file), "utf8")) as {
          event_id: string
          control_version: number
        }
        assert.isFalse(feed.has(event_id), `${event_id} is in the feed twice`)
        feed.set(event_id, control_version)
      }
      return feed
    })
  )

const until = <A>(self: Effect.Effect<A>, predicate: (value: A) => boolean) =>
  Effect.repeat(Effect.delay(self, "20 millis"), { until: predicate })

const ndjson = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, index) =>
    JSON.stringify({ event_id: `e${from + index}`, type: "test", tenant_id: `t${index % 40}` })
  ).join("\n")

vi.setConfig({ testTimeout: 60_000 })

layer(Layer.merge(Controlpublish.layerProgram, layerDatabase), { excludeTestServices: true, timeout: 300_000 })(
  "controlpublish serve",
  (it) => {
    it.scoped("says that nothing will be published by nop, and opens no database", () =>
      Effect.gen(function* () {
        const program = yield* Controlpublish.Program
        const cwd = yield* Controlpublish.workingDirectory
        for (const [env, signal] of [
          [{}, "SIGTERM"],
          [{ DATABASE_URL: "postgres://nobody@127.0.0.1:1/none" }, "SIGINT"]
        ] as const) {
          const serve = yield* Controlpublish.start(program, ["serve"], { cwd, env: { ...env, ADMIN_PORT: "0" } })
          yield* serve.waitFor(/sink +nop: nothing will be published.*\n {2}admin +http:.*\nStop with Ctrl-C/)
          assert.isNull(serve.process.exitCode)
          const { code, stderr } = yield* serve.stop(signal)
          assert.deepStrictEqual([code, stderr], [0, ""])
        }
        assert.deepStrictEqual(yield* Effect.promise(() => Fs.readdir(cwd)), [])
      })
    )

    it.scoped("shares the embedded database with append, and tells the command that works", () =>
      Effect.gen(function* () {
        const { cwd, databaseRuns, feed, run, serve } = yield* command
        const early = yield* run(["append", "--type", "tenant.created", "--event-id", "early"])
        assert.deepStrictEqual([early.code, early.stdout], [0, "early\n"], early.stderr)
        assert.isFalse(yield* databaseRuns)

        const running = yield* serve()
        const told = yield* running.printed
        assert.include(told, `database  embedded PostgreSQL in ${Path.join(cwd, ".controlpublish")}\n`)
        assert.match(told, /^ {2}schema {4}public$/m)
        assert.match(told, /^ {2}sink {6}file$/m)
        assert.include(told, `feed      ${Path.join(cwd, "feed")}\n`)
        const copied = /^ {2}append +(node .*?) {3}\(in this directory\)$/m.exec(told)![1]!
        const { stdout } = yield* Effect.promise(() => promisify(execFile)("sh", ["-c", copied], { cwd }))
        const ids = ["early", stdout.trim()]
        yield* until(feed, (feed) => ids.every((id) => feed.has(id)))

        const many = yield* run(["append", "-"], ndjson(0, 100))
        assert.strictEqual(many.code, 0, many.stderr)
        const published = yield* until(feed, (feed) => feed.size === 102)
        assert.strictEqual(new Set(published.values()).size, 102)
        assert.match((yield* run(["status"])).stdout, /^pending {3}0$/m)

        assert.isTrue(yield* databaseRuns)
        const { code, stderr } = yield* running.stop("SIGTERM")
        assert.deepStrictEqual([code, stderr], [0, ""])
        assert.isFalse(yield* databaseRuns)
      })
    )

    it.scoped("finishes what is in flight when it is stopped, and goes on from there", () =>
      Effect.gen(function* () {
        const { cwd, databaseRuns, feed, query, run, serve } = yield* command
        const files = Effect.map(list(Path.join(cwd, "feed")), (files) => files.length)
        const count = 3_000
        assert.strictEqual((yield* run(["append", "-"], ndjson(0, count))).code, 0)
        const settled = Effect.gen(function* () {
          const rows = yield* query(
            `SELECT event_id, published_control_version::int AS version, published_at IS NOT NULL AS published,
             attempt_count AS attempts FROM control_events_outbox`
          )
          assert.strictEqual(rows.length, count)
          const versions = yield* feed
          for (const row of rows) {
            const version = versions.get(String(row.event_id)) ?? null
            const published = version !== null
            assert.deepInclude(row, { version, published, attempts: published ? 1 : 0 }, "in the feed and in its row")
          }
          return versions.size
        })

        let before = 0
        for (const signal of ["SIGTERM", "SIGHUP"] as const) {
          const running = yield* serve("--batch-size", "50")
          yield* until(files, (files) => files > before + 200)
          const { code, stderr, stdout } = yield* running.stop(signal)
          assert.deepStrictEqual([code, stderr], [0, ""])
          assert.match(stdout, /\nStopping: finishing the publishes in flight\.\nStopped\.\n$/)
          assert.isFalse(yield* databaseRuns, "the database was left behind")
          const after = yield* settled
          assert.isAbove(after, before)
          assert.isBelow(after, count, "all was published: nothing was interrupted")
          before = after
        }

        const last = yield* serve()
        yield* until(files, (files) => files === count)
        yield* last.stop("SIGTERM")
        assert.strictEqual(yield* settled, count)
      })
    )

    it.scoped("refuses a feed that another process publishes into", () =>
      Effect.gen(function* () {
        const { cwd, feed, run, serve, start } = yield* command
        const first = yield* serve()
        const second = yield* start(["serve"])
        const { code, stderr, stdout } = yield* second.end
        assert.deepStrictEqual([code, stdout], [1, ""])
        assert.strictEqual(
          stderr,
          `controlpublish: The directory ${Path.join(cwd, "feed")} is in use by process ${first.process.pid}\n`
        )
        yield* run(["append", "--type", "a", "--event-id", "still"])
        yield* until(feed, (feed) => feed.has("still"))
        assert.strictEqual((yield* first.stop("SIGTERM")).code, 0)
      })
    )

    it.scoped("names the setting of a directory that cannot be used", () =>
      Effect.gen(function* () {
        const program = yield* Controlpublish.Program
        const cwd = yield* Controlpublish.workingDirectory
        yield* Effect.promise(() => Fs.writeFile(Path.join(cwd, "file"), ""))
        const refused = (args: ReadonlyArray<string>, env: Record<string, string>) =>
          Effect.map(Controlpublish.run(program, args, { cwd, env: { ADMIN_PORT: "off", ...env } }), (result) => {
            assert.deepStrictEqual([result.code, result.stdout], [1, ""], result.stderr)
            return result.stderr
          })
        const sink = { FEED_SINK: "file" }
        const source = { FEED_SOURCE: "file" }
        for (const [args, env, expected] of [
          [["serve"], { ...sink, FEED_SINK_FILE_DIR: "file" }, /FEED_SINK_FILE_DIR.*"file" is not a directory/],
          [["serve"], { ...sink, FEED_SINK_FILE_DIR: "file/feed" }, /FEED_SINK_FILE_DIR.*a part of the path is not/],
          // Nobody can make directories there, not even root.
          [["serve"], { ...sink, FEED_SINK_FILE_DIR: "/proc/feed" }, /FEED_SINK_FILE_DIR.*Cannot use the directory/],
          [["tail"], { ...source, FEED_SOURCE_FILE_DIR: "file" }, /FEED_SOURCE_FILE_DIR.*"file" is not a directory/],
          [["apply"], { ...source, ARTIFACT_DIR: "file" }, /ARTIFACT_DIR.*"file" is not a directory/]
        ] as const) {
          assert.match(yield* refused(args, env), expected)
        }
        yield* Effect.promise(() => Fs.writeFile(Path.join(cwd, ".controlpublish"), ""))
        assert.match(
          yield* refused(["append", "--type", "a"], {}),
          /Cannot use the directory \.controlpublish: .*set DATABASE_URL\n$/
        )
      })
    )

    it.scoped("can be stopped while it starts, and leaves nothing that runs", () =>
      Effect.gen(function* () {
        const { cwd, databaseRuns, start } = yield* command
        const starting = yield* start(["serve"])
        const log = Path.join(cwd, ".controlpublish", "postgres.log")
        yield* until(
          Effect.promise(() =>
            Fs.access(log).then(
              () => true,
              () => false
            )
          ),
          (started) => started
        )
        const { code, stderr } = yield* starting.stop("SIGTERM")
        assert.deepStrictEqual([code, stderr], [0, ""])
        assert.isFalse(yield* databaseRuns)
      })
    )

    it.scoped("migrates the schema of a given database and publishes from it", () =>
      Effect.gen(function* () {
        const program = yield* Controlpublish.Program
        const { url } = yield* TestDatabase
        const cwd = yield* Controlpublish.workingDirectory
        const env = {
          DATABASE_URL: Redacted.value(url),
          DATABASE_SCHEMA: "it's",
          LOG_LEVEL: "debug",
          ADMIN_PORT: "off"
        }
        // The command to copy has to survive a path with spaces.
        const linked = Path.join(yield* Controlpublish.workingDirectory, "it's here")
        yield* Effect.promise(() => Fs.symlink(Path.dirname(program), linked))
        const script = Path.join(linked, Path.basename(program))
        const running = yield* Controlpublish.start(script, ["serve", "--sink=file", "--sink-file-dir", "f/e e/d"], {
          cwd,
          env
        })
        yield* running.waitFor(/Stop with Ctrl-C/)
        const { password } = new URL(Redacted.value(url))
        const copied = /^ {2}append +(node .*?) {3}\(with the same DATABASE_URL\)$/m.exec(yield* running.printed)![1]!
        const { stdout } = yield* Effect.promise(() =>
          promisify(execFile)("sh", ["-c", copied], { cwd, env: { ...process.env, DATABASE_URL: env.DATABASE_URL } })
        )
        yield* until(readFeed(Path.join(cwd, "f/e e/d")), (feed) => feed.has(stdout.trim()))
        const { code, stderr, stdout: printed } = yield* running.stop("SIGTERM")
        assert.strictEqual(code, 0, stderr)
        // A server may ask for none.
        if (password !== "") assert.notInclude(printed + stderr, password)
        assert.deepStrictEqual(yield* Effect.promise(() => Fs.readdir(cwd)), ["f"])
      })
    )
  }
)
