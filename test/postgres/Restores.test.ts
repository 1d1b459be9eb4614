import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { randomBytes } from "node:crypto"
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import type * as Pg from "pg"
import { FileSink } from "../../src/file/index.js"
import { Outbox, OutboxAdmin, Pump, PumpConfig } from "../../src/index.js"
import { Migrations, Postgres, PostgresOutboxAdmin } from "../../src/postgres/index.js"
import { MemorySink } from "../../src/testing/index.js"
import { layerDatabase, TestDatabase } from "../support/postgres.js"
import { eventually, feedIds } from "../support/pump.js"
import { connectTo } from "../support/roles.js"
import * as Tools from "../support/serverTools.js"

const run = (client: Pg.Client, ...statements: ReadonlyArray<string>) =>
  Effect.promise(async () => {
    let rows: Array<Record<string, unknown>> = []
    for (const statement of statements) rows = (await client.query<Record<string, unknown>>(statement)).rows
    return rows
  })

const clientOf = (url: string) => PgClient.layer({ url: Redacted.make(url) })

const migrated = (url: string) => Effect.provide(Migrations.run(), clientOf(url))

const checked = (url: string) => Effect.provide(Migrations.check(), clientOf(url))

const insert = (letter: string, rows: number) =>
  `INSERT INTO control_events_outbox (event_id, event_type, tenant_id, payload_json)
    SELECT '${letter}' || g, 'x', 't', json_build_object('event_id', '${letter}' || g, 'type', 'x', 'tenant_id', 't',
      'created_at', '2026-01-01T00:00:00Z') FROM generate_series(1, ${rows}) g`

/** Published, parked, waiting and pending rows, in a physical order that is not that of their ids, and what belongs to them. */
const filled = (url: string) =>
  Effect.scoped(
    Effect.flatMap(connectTo(url), (client) =>
      run(
        client,
        insert("a", 400),
        "DELETE FROM control_events_outbox WHERE id <= 200",
        "VACUUM control_events_outbox",
        insert("b", 100),
        `UPDATE control_events_outbox SET published_at = now(), published_control_version = id WHERE event_id = 'a201'`,
        `UPDATE control_events_outbox SET parked_at = now(), last_error = 'no' WHERE event_id = 'a202'`,
        `UPDATE control_events_outbox SET next_attempt_at = now() - interval '1 s', attempt_count = 3
          WHERE event_id = 'b1'`,
        `INSERT INTO control_events_attempts (outbox_id, at, error)
          SELECT id, now(), 'no' FROM control_events_outbox WHERE event_id = 'b1'`,
        `INSERT INTO control_events_audit (at, action, actor, reason) VALUES (now(), 'pause', 'o', 'r')`,
        // Drawn and rolled back: the sequence stands above the highest id.
        "SELECT nextval('control_events_outbox_id_seq')"
      )
    )
  )

/** Every row of every table of the outbox, and where its sequence stands. */
const contentOf = (url: string) =>
  Effect.scoped(
    Effect.gen(function* () {
      const client = yield* connectTo(url)
      const tables = yield* run(
        client,
        `SELECT c.relname AS name, c.relkind AS kind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname = 'public' AND c.relkind IN ('r', 'S') AND c.relname LIKE 'control\\_events\\_%' ORDER BY c.relname`
      )
      assert.includeMembers(
        tables.map(({ name }) => name),
        ["control_events_outbox", "control_events_outbox_id_seq", "control_events_audit"]
      )
      const content: Record<string, unknown> = {}
      for (const { kind, name } of tables) {
        const quoted = `"${String(name)}"`
        content[String(name)] = yield* kind === "S"
          ? run(client, `SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS last FROM ${quoted}`)
          : run(client, `SELECT * FROM ${quoted} t ORDER BY t::text COLLATE "C"`)
      }
      return content
    })
  )

/** Publishes everything after one more append, and answers the ids in the order of the feed. */
const publishedAfter = (url: string) =>
  Effect.gen(function* () {
    const outbox = yield* Outbox.Outbox
    yield* outbox.withTransaction(outbox.append({ event_id: "last", type: "x", tenant_id: "t" }))
    const pump = yield* Pump.Pump
    yield* pump.drain
    return yield* feedIds
  }).pipe(
    Effect.provide(
      Layer.mergeAll(Outbox.layer, Pump.layerManual).pipe(
        Layer.provideMerge(MemorySink.layer),
        Layer.provide(PumpConfig.layerDefaults),
        Layer.provide(Postgres.layer()),
        Layer.provide(clientOf(url))
      )
    )
  )

const inOrder = [
  ...Array.from({ length: 198 }, (_, n) => `a${n + 203}`),
  ...Array.from({ length: 100 }, (_, n) => `b${n + 1}`),
  "last"
]

const databaseOn = (server: Tools.Server) =>
  Effect.gen(function* () {
    const name = `d${randomBytes(6).toString("hex")}`
    yield* Tools.succeed("psql", ["-X", "-q", server.url(), "-c", `CREATE DATABASE ${name}`])
    return server.url(name)
  })

/** A source with rows, and an empty database to restore to. */
const moving = Effect.gen(function* () {
  const server = yield* Tools.server()
  const directory = yield* Tools.workspace
  const source = yield* databaseOn(server)
  yield* migrated(source)
  yield* filled(source)
  return { directory, file: join(directory, "outbox"), server, source, target: yield* databaseOn(server) }
})

const isMoved = (source: string, target: string) =>
  Effect.gen(function* () {
    assert.deepStrictEqual(yield* contentOf(target), yield* contentOf(source))
    yield* checked(target)
    assert.deepStrictEqual(yield* publishedAfter(target), inOrder)
  })

const psql = (url: string, file: string, env: Record<string, string> = {}) =>
  Tools.run("psql", ["-X", "-q", "--single-transaction", "--set", "ON_ERROR_STOP=1", url, "-f", file], { env })

const restoring = { PGOPTIONS: "-c controlpublish.restore=on" }

/** What the page has an operator run on the sequences. */
const statementsOfThePage = Effect.promise(async () => {
  const page = await readFile("docs/moving-tables.md", "utf8")
  const [, text = ""] = /```sql\n([^`]+)```/.exec(page) ?? []
  const statements = text.split(";").filter((statement) => statement.trim() !== "")
  assert.lengthOf(statements, 2)
  return statements
})

const timeout = 300_000

describe.skipIf(!Tools.available())("With the tools of a server,", () => {
  it.scopedLive(
    "a full dump keeps everything: psql, pg_restore, and a later major version",
    () =>
      Effect.gen(function* () {
        const { directory, file, server, source, target } = yield* moving
        yield* Tools.succeed("pg_dump", ["-d", source, "-f", file])
        assert.deepInclude(yield* psql(target, file), { code: 0, stderr: "" })
        yield* isMoved(source, target)

        const custom = join(directory, "custom")
        const other = yield* databaseOn(server)
        yield* Tools.succeed("pg_dump", ["-Fc", "-d", source, "-f", custom])
        yield* Tools.succeed("pg_restore", ["--exit-on-error", "--jobs", "2", "-d", other, custom])
        yield* isMoved(source, other)

        // The server of the other tests is a later one.
        const later = Redacted.value((yield* TestDatabase).url)
        assert.deepInclude(yield* psql(later, file, { PGSSLMODE: "disable" }), { code: 0, stderr: "" })
        yield* isMoved(source, later)
      }).pipe(Effect.provide(layerDatabase)),
    timeout
  )

  it.scopedLive(
    "a data-only dump is refused as a whole, and kept with controlpublish.restore",
    () =>
      Effect.gen(function* () {
        const { directory, file, server, source, target } = yield* moving
        yield* Tools.succeed("pg_dump", ["--data-only", "--table=control_events_*", "-d", source, "-f", file])
        yield* migrated(target)
        const before = yield* contentOf(target)
        const refused = yield* psql(target, file)
        assert.notStrictEqual(refused.code, 0)
        assert.match(refused.stderr, /the row brings the id/)
        assert.deepStrictEqual(yield* contentOf(target), before)
        const kept = yield* psql(target, file, restoring)
        assert.deepInclude(kept, { code: 0, stderr: "" })
        yield* isMoved(source, target)

        const custom = join(directory, "custom")
        const other = yield* databaseOn(server)
        yield* migrated(other)
        yield* Tools.succeed("pg_dump", ["-Fc", "--data-only", "--table=control_events_*", "-d", source, "-f", custom])
        const restore = ["--exit-on-error", "--single-transaction", "-d", other, custom]
        const unset = yield* Tools.run("pg_restore", restore)
        assert.match(unset.stderr, /the row brings the id/)
        yield* Tools.succeed("pg_restore", restore, { env: restoring })
        yield* isMoved(source, other)
      }),
    timeout
  )

  it.scopedLive(
    "a data-only dump is kept with --disable-triggers, and one without its sequence stops the start",
    () =>
      Effect.gen(function* () {
        const { file, server, source, target } = yield* moving
        const dump = ["--data-only", "--disable-triggers", "-d", source, "-f", file]
        yield* Tools.succeed("pg_dump", [...dump, "--table=control_events_*"])
        yield* migrated(target)
        assert.deepInclude(yield* psql(target, file), { code: 0, stderr: "" })
        yield* isMoved(source, target)

        const other = yield* databaseOn(server)
        yield* migrated(other)
        // A sequence comes with its table, whatever the pattern.
        yield* Tools.succeed("pg_dump", [...dump, "--table=control_events_outbox"])
        const text = yield* Effect.promise(() => readFile(file, "utf8"))
        const without = text.replace(
          /^SELECT pg_catalog\.setval\('public\.control_events_outbox_id_seq', 501, true\);$/m,
          ""
        )
        assert.notStrictEqual(without, text)
        yield* Effect.promise(() => writeFile(file, without))
        assert.deepInclude(yield* psql(other, file), { code: 0, stderr: "" })
        const error = yield* Effect.flip(checked(other))
        assert.deepInclude({ ...error }, { _tag: "SequenceBehind", drawn: "0", highest: "500" })
        const [, statement] = /run (SELECT .*)$/.exec(error.message) ?? []
        yield* Tools.succeed("psql", ["-X", "-q", other, "-c", statement!])
        yield* checked(other)
        assert.deepStrictEqual(yield* publishedAfter(other), inOrder)
      }),
    timeout
  )

  it.scopedLive(
    "a logical replication to a later major version keeps rows and their states, and needs the sequence to be set",
    () =>
      Effect.gen(function* () {
        const server = yield* Tools.server({ wal_level: "logical" })
        const source = yield* databaseOn(server)
        const target = Redacted.value((yield* TestDatabase).url)
        yield* migrated(source)
        yield* filled(source)
        yield* migrated(target)
        const from = yield* connectTo(source)
        const to = yield* connectTo(target)
        const tables = yield* run(
          from,
          `SELECT string_agg(quote_ident(relname), ', ') AS names FROM pg_class
            WHERE relname LIKE 'control\\_events\\_%' AND relkind = 'r'`
        )
        yield* run(from, `CREATE PUBLICATION outbox FOR TABLE ${String(tables[0]!["names"])}`)
        const slot = `s${randomBytes(6).toString("hex")}`
        yield* run(
          to,
          `CREATE SUBSCRIPTION ${slot} CONNECTION '${source}' PUBLICATION outbox WITH (slot_name = '${slot}')`
        )
        yield* run(from, `UPDATE control_events_outbox SET attempt_count = 4 WHERE event_id = 'b1'`)
        const rowsOf = (client: Pg.Client) => run(client, "SELECT * FROM control_events_outbox ORDER BY id")
        const rows = JSON.stringify(yield* rowsOf(from))
        yield* eventually(
          "the target has every row",
          Effect.map(rowsOf(to), (copied) => JSON.stringify(copied) === rows)
        )
        yield* run(to, `DROP SUBSCRIPTION ${slot}`)
        const error = yield* Effect.flip(checked(target))
        assert.deepInclude({ ...error }, { _tag: "SequenceBehind", drawn: "0", highest: "500" })
        const [outbox, ...rest] = yield* statementsOfThePage
        yield* run(to, outbox!)
        yield* checked(target)
        const pause = Effect.flatMap(OutboxAdmin.OutboxAdmin, (admin) =>
          admin.record("pause", { actor: "o", reason: "r" })
        ).pipe(Effect.provide(PostgresOutboxAdmin.layer().pipe(Layer.provide(clientOf(target)))))
        assert.match((yield* Effect.flip(pause)).message, /control_events_audit_pkey/)
        yield* run(to, ...rest)
        yield* pause
        assert.deepStrictEqual(yield* publishedAfter(target), inOrder)
      }).pipe(Effect.provide(layerDatabase)),
    timeout
  )

  it.scopedLive(
    "pg_upgrade keeps everything",
    () =>
      Effect.gen(function* () {
        const old = yield* Tools.server()
        const source = yield* databaseOn(old)
        yield* migrated(source)
        yield* filled(source)
        const before = yield* contentOf(source)
        yield* old.stop
        const directory = yield* Tools.workspace
        const data = join(directory, "data")
        yield* Tools.initialize(data)
        yield* Tools.succeed(
          "pg_upgrade",
          ["-b", Tools.bin, "-B", Tools.bin, "-d", old.data, "-D", data, "-U", "postgres", "-s", directory],
          { cwd: directory }
        )
        const upgraded = (yield* Tools.start(data)).url(new URL(source).pathname.slice(1))
        assert.deepStrictEqual(yield* contentOf(upgraded), before)
        yield* checked(upgraded)
        assert.deepStrictEqual(yield* publishedAfter(upgraded), inOrder)
      }),
    timeout
  )

  it.scopedLive(
    "a physical restore to an earlier point in time publishes again what the feed has, under the versions that it had",
    () =>
      Effect.gen(function* () {
        const directory = yield* Tools.workspace
        const archive = join(directory, "wal")
        const server = yield* Tools.server({
          wal_level: "replica",
          archive_mode: "on",
          archive_command: `mkdir -p ${archive} && cp %p ${archive}/%f`
        })
        const source = yield* databaseOn(server)
        yield* migrated(source)
        const data = join(directory, "data")
        yield* Tools.succeed("pg_basebackup", ["-d", server.url(), "-D", data, "--checkpoint=fast", "-X", "none"])
        const feed = join(directory, "feed")
        yield* Effect.promise(() => mkdir(feed))
        const pumped = (url: string, ...ids: ReadonlyArray<string>) =>
          Effect.gen(function* () {
            const outbox = yield* Outbox.Outbox
            const events = ids.map((event_id) => ({ event_id, type: "x", tenant_id: "t" }))
            yield* outbox.withTransaction(outbox.appendAll(events))
            return yield* (yield* Pump.Pump).drain
          }).pipe(
            Effect.provide(
              Layer.mergeAll(Outbox.layer, Pump.layerManual).pipe(
                Layer.provide([Postgres.layer(), FileSink.layer({ directory: feed }), PumpConfig.layerDefaults]),
                Layer.provide(clientOf(url))
              )
            )
          )
        const versions = (url: string) =>
          Effect.scoped(
            Effect.flatMap(connectTo(url), (client) =>
              run(
                client,
                "SELECT event_id AS id, published_control_version::int AS version FROM control_events_outbox ORDER BY id"
              )
            )
          )
        yield* pumped(source, "e1", "e2")
        const client = yield* connectTo(source)
        yield* run(
          client,
          `INSERT INTO control_events_outbox (event_id, event_type, tenant_id, payload_json)
          VALUES ('e3', 'x', 't', '{"event_id":"e3","type":"x","tenant_id":"t"}')`
        )
        const then = yield* contentOf(source)
        yield* run(client, "SELECT pg_create_restore_point('then')")
        yield* pumped(source, "e4")
        const ahead = yield* versions(source)
        assert.deepStrictEqual(
          ahead.map(({ version }) => version),
          [1, 2, 3, 4]
        )
        yield* run(client, "SELECT pg_switch_wal()")
        yield* Effect.promise(() => client.end())
        yield* server.stop

        yield* Effect.promise(() =>
          writeFile(
            join(data, "postgresql.auto.conf"),
            `archive_mode = off\nrestore_command = 'cp ${archive}/%f %p'\nrecovery_target_name = 'then'\nrecovery_target_action = 'promote'\n`
          )
        )
        yield* Effect.promise(() => writeFile(join(data, "recovery.signal"), ""))
        const restored = (yield* Tools.start(data)).url(new URL(source).pathname.slice(1))
        yield* Effect.scoped(
          Effect.flatMap(connectTo(restored), (client) =>
            eventually(
              "the recovery has ended",
              Effect.map(run(client, "SELECT pg_is_in_recovery() AS is"), ([row]) => row?.["is"] === false)
            )
          )
        )
        const { control_events_outbox: rows } = yield* contentOf(restored)
        assert.deepStrictEqual(rows, then["control_events_outbox"])
        yield* checked(restored)
        yield* pumped(restored, "e5")
        // e3 has the version that it had, and what came later is after all that the feed had.
        assert.deepStrictEqual(yield* versions(restored), [
          { id: "e1", version: 1 },
          { id: "e2", version: 2 },
          { id: "e3", version: 3 },
          { id: "e5", version: 5 }
        ])
        const files = yield* Effect.promise(() => readdir(feed))
        assert.strictEqual(files.filter((name) => name.endsWith(".json")).length, 5)
      }),
    timeout
  )
})
