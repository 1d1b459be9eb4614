import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import * as SqlClient from "@effect/sql/SqlClient"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Redacted } from "effect"
import { once } from "node:events"
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import { AppliedEvents } from "../../src/fleet/index.js"
import { FleetMigrations, PostgresAppliedEvents } from "../../src/postgres/index.js"
import { SqliteAppliedEvents, SqliteMigrations } from "../../src/sqlite/index.js"
import { layerClient, TestDatabase } from "../support/postgres.js"
import { bundle, kill, run } from "../support/processes.js"
import { eventually } from "../support/pump.js"

/** A node's database, and how another process finds it. */
class Target extends Context.Tag("test/Target")<Target, string>() {}

const postgres = PostgresAppliedEvents.layer().pipe(
  Layer.provideMerge(Layer.orDie(FleetMigrations.layer())),
  Layer.provideMerge(
    Layer.effect(
      Target,
      Effect.map(TestDatabase, ({ url }) => Redacted.value(url))
    )
  ),
  Layer.provideMerge(layerClient)
)

const sqlite = Layer.unwrapScoped(
  Effect.acquireRelease(
    Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "crash-node-"))),
    (directory) => Effect.promise(() => Fs.rm(directory, { recursive: true }))
  ).pipe(
    Effect.map((directory) => {
      const filename = Path.join(directory, "node.db")
      return SqliteAppliedEvents.layer.pipe(
        Layer.provide(SqliteMigrations.layer),
        Layer.provideMerge(SqliteClient.layer({ filename })),
        Layer.provideMerge(Layer.succeed(Target, `sqlite:${filename}`))
      )
    })
  )
)

const createTables = Effect.flatMap(SqlClient.SqlClient, (sql) => {
  const position = sql.onDialectOrElse({
    sqlite: () => "position INTEGER PRIMARY KEY",
    orElse: () => "position bigserial"
  })
  return Effect.forEach(
    [
      `CREATE TABLE log (${position}, event_id text NOT NULL, version int NOT NULL, applier int NOT NULL)`,
      "CREATE TABLE counter (n int NOT NULL)",
      "INSERT INTO counter VALUES (0)"
    ],
    (statement) => sql.unsafe(statement),
    { discard: true }
  )
})

const countOf = (table: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(sql<{ n: number | string }>`SELECT count(*) AS n FROM ${sql(table)}`, ([row]) => Number(row!.n))
  )

/** Every tenth event comes again under a later version, as from a pump that did not learn of the first time. */
const isCopied = (n: number) => n % 10 === 0

const feed = (total: number) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const directory = await Fs.mkdtemp(Path.join(Os.tmpdir(), "crash-feed-"))
      let version = 0
      const write = async (n: number, name: string) => {
        const event = { event_id: `e${n}`, type: "x", control_version: ++version }
        await Fs.writeFile(Path.join(directory, `${name}.json`), JSON.stringify(event))
      }
      for (let n = 1; n <= total; n++) {
        await write(n, `e${n}`)
        if (n > 50 && isCopied(n)) await write(n - 50, `e${n - 50}-again`)
      }
      return { directory, newest: version }
    }),
    ({ directory }) => Effect.promise(() => Fs.rm(directory, { recursive: true }))
  )

type Node = Layer.Layer<Target | AppliedEvents.AppliedEvents | SqlClient.SqlClient, unknown>

describe.each<readonly [string, Node]>([
  ["PostgreSQL", postgres],
  ["SQLite", sqlite]
])("Appliers that crash, with %s", (_, node) => {
  it.scopedLive(
    "apply each event once and in order: killed with -9 in a transaction and after its commit, two at a time, copies among the events",
    () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const applied = yield* AppliedEvents.AppliedEvents
        const target = yield* Target
        const program = yield* bundle("applierProcess")
        const total = 5_000
        const { directory, newest } = yield* feed(total)
        yield* createTables
        const start = (killAt = "never", n = 0) => run(program, [target, directory, killAt, String(n)])
        const position = Effect.map(applied.cursor, ({ position }) => position)
        const rows = countOf("log")

        // Killed with its transaction open: nothing of it is there.
        const inFirst = yield* start("handler", 1)
        if (inFirst.signalCode === null) yield* Effect.promise(() => once(inFirst, "exit"))
        assert.strictEqual(inFirst.signalCode, "SIGKILL")
        assert.strictEqual(yield* position, 0)
        assert.strictEqual(yield* rows, 0)

        // Killed after its commit, before the source hears of it: it is applied.
        const afterFirst = yield* start("acknowledge", 1)
        if (afterFirst.signalCode === null) yield* Effect.promise(() => once(afterFirst, "exit"))
        assert.strictEqual(afterFirst.signalCode, "SIGKILL")
        assert.strictEqual(yield* position, 1)
        assert.strictEqual(yield* rows, 1)

        // In the middle of transactions of many events, and after them, two at a time.
        for (const [killAt, n] of [
          ["handler", 100],
          ["acknowledge", 4]
        ] as const) {
          const children = yield* Effect.all([start(killAt, n), start(killAt, n * 2)], { concurrency: 2 })
          yield* Effect.forEach(children, (child) =>
            child.signalCode === null ? Effect.promise(() => once(child, "exit")) : Effect.void
          )
          assert.deepStrictEqual(
            children.map(({ signalCode }) => signalCode),
            ["SIGKILL", "SIGKILL"]
          )
        }
        assert.isBelow(yield* position, newest)

        // At any moment, from outside.
        const children = yield* Effect.all([start(), start()], { concurrency: 2 })
        yield* Effect.sleep("100 millis")
        yield* Effect.forEach(children, (child) => kill(child, "SIGKILL"))

        const last = yield* Effect.all([start(), start()], { concurrency: 2 })
        yield* eventually(
          "everything is applied",
          Effect.map(position, (position) => position === newest)
        )
        assert.deepStrictEqual(yield* Effect.forEach(last, (child) => kill(child, "SIGTERM")), [0, 0])

        const check = Effect.gen(function* () {
          const log = yield* sql<{
            event_id: string
            version: number
          }>`SELECT event_id, version FROM log ORDER BY position`
          assert.strictEqual(log.length, total)
          assert.deepStrictEqual(
            log.map(({ event_id }) => event_id),
            Array.from({ length: total }, (_, n) => `e${n + 1}`)
          )
          assert.deepStrictEqual(yield* sql`SELECT n FROM counter`, [{ n: total }])
        })
        yield* check

        // Everything again.
        yield* applied.seek({ feed: "", position: 0 })
        const again = yield* start()
        yield* eventually(
          "everything is read again",
          Effect.map(position, (position) => position === newest)
        )
        assert.strictEqual(yield* kill(again, "SIGTERM"), 0)
        yield* check
      }).pipe(Effect.provide(node)),
    300_000
  )

  it.scopedLive(
    "stop with 0, and have applied the events in flight as a whole",
    () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const applied = yield* AppliedEvents.AppliedEvents
        const target = yield* Target
        const program = yield* bundle("applierProcess")
        const { directory, newest } = yield* feed(1_000)
        yield* createTables
        const child = yield* run(program, [target, directory, "never", "0"])
        yield* eventually(
          "it applies",
          Effect.map(applied.cursor, ({ position }) => position > 20)
        )
        assert.strictEqual(yield* kill(child, "SIGTERM"), 0)
        const { position } = yield* applied.cursor
        assert.isBelow(position, newest)
        const done = (yield* sql<{ n: number }>`SELECT n FROM counter`)[0]!.n
        assert.deepStrictEqual([yield* countOf("log"), yield* countOf("applied_events")], [done, done])
      }).pipe(Effect.provide(node)),
    300_000
  )
})
