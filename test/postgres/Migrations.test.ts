import * as PgClient from "@effect/sql-pg/PgClient"
import * as SqlClient from "@effect/sql/SqlClient"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Logger, Redacted } from "effect"
import { Outbox, OutboxStore, Pump, PumpConfig, WakeUp } from "../../src/index.js"
import { FleetMigrations, Migrations, Postgres, PostgresAppliedEvents } from "../../src/postgres/index.js"
import * as Names from "../../src/postgres/internal/names.js"
import * as PostgresOutboxStore from "../../src/postgres/PostgresOutboxStore.js"
import * as PostgresWakeUp from "../../src/postgres/PostgresWakeUp.js"
import { MemorySink } from "../../src/testing/index.js"
import { layerClient, rawClient } from "../support/postgres.js"
import { asOwner, makeRole } from "../support/roles.js"

/** What the catalogue says of a schema: columns, indexes, triggers and functions. */
const describeSchema = (schema: string) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => sql`
      SELECT 'column' AS kind, table_name || '.' || column_name AS name,
        concat_ws(' ', data_type, is_nullable, column_default, generation_expression) AS definition
        FROM information_schema.columns WHERE table_schema = ${schema}
      UNION ALL SELECT 'index', indexname, replace(indexdef, ${schema}, '') FROM pg_indexes WHERE schemaname = ${schema}
      UNION ALL SELECT 'trigger', tgname, tgtype::text FROM pg_trigger
        WHERE tgrelid = ${`${schema}.control_events_outbox`}::regclass AND NOT tgisinternal
      UNION ALL SELECT 'function', proname, provolatile::text FROM pg_proc WHERE pronamespace = ${schema}::regnamespace
      ORDER BY 1, 2`
  )

/** The store of this version, whatever the tables are. */
const unchecked = Layer.scopedContext(
  Effect.gen(function* () {
    const names = Names.make("public")
    return Context.make(OutboxStore.OutboxStore, yield* PostgresOutboxStore.make(names)).pipe(
      Context.add(WakeUp.WakeUp, yield* PostgresWakeUp.make(names))
    )
  })
)

describe("Migrations", () => {
  it.effect("runs what is missing, once", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* Migrations.current({ schema: "s" }), 0)
      assert.deepStrictEqual(yield* Migrations.run({ schema: "s" }), [
        { id: 1, name: "initial" },
        { id: 2, name: "operating" },
        { id: 3, name: "guarded" },
        { id: 4, name: "audited" },
        { id: 5, name: "attended" }
      ])
      assert.deepStrictEqual(yield* Migrations.run({ schema: "s" }), [])
      assert.strictEqual(yield* Migrations.current({ schema: "s" }), Migrations.latest.id)
    }).pipe(Effect.provide(layerClient))
  )

  it.effect("leaves the application's own migrations alone", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE effect_sql_migrations (migration_id integer PRIMARY KEY, name text NOT NULL)`
      yield* sql`INSERT INTO effect_sql_migrations VALUES (7, 'mine')`
      yield* Migrations.run()
      assert.deepStrictEqual(yield* sql`SELECT * FROM effect_sql_migrations`, [{ migration_id: 7, name: "mine" }])
    }).pipe(Effect.provide(layerClient))
  )

  it.effect("lets processes that migrate at the same time wait for each other", () =>
    Effect.gen(function* () {
      const runs = yield* Effect.all(
        Array.from({ length: 5 }, () => Migrations.run({ schema: "s" })),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(runs.map((ran) => ran.length).sort(), [0, 0, 0, 0, Migrations.latest.id])
    }).pipe(Effect.provide(layerClient))
  )

  it.effect("answers a failure with the schema and the server's words, and keeps nothing", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE SCHEMA s`
      yield* sql`CREATE VIEW s.control_events_outbox AS SELECT 1 AS one`
      const failure = yield* Effect.flip(Migrations.run({ schema: "s" }))
      assert.strictEqual(failure._tag, "MigrationFailed")
      assert.match(failure.message, /schema "s": relation "control_events_outbox" already exists/)
      assert.strictEqual(yield* Migrations.current({ schema: "s" }), 0)
    }).pipe(Effect.provide(layerClient))
  )

  it.scoped("prints SQL that makes the same tables", () =>
    Effect.gen(function* () {
      const psql = yield* rawClient
      yield* Effect.promise(() => psql.query(Migrations.print({ schema: "printed" })))
      yield* Migrations.run({ schema: "migrated" })
      const printed = yield* describeSchema("printed")
      assert.isAbove(printed.length, 30)
      assert.deepStrictEqual(
        JSON.parse(JSON.stringify(printed).replaceAll("printed", "")),
        JSON.parse(JSON.stringify(yield* describeSchema("migrated")).replaceAll("migrated", ""))
      )
      assert.deepStrictEqual(yield* Migrations.run({ schema: "printed" }), [])
    }).pipe(Effect.provide(layerClient))
  )

  it.effect("tells tables that are older or newer than this version needs", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const needs = `and this version needs ${Migrations.latest.id}: run "controlpublish migrate" first`
      const none = yield* Effect.flip(Migrations.check({ schema: "s" }))
      assert.strictEqual(none.message, 'the schema "s" has no outbox: run "controlpublish migrate" first')
      yield* Migrations.run({ schema: "s" })
      yield* Migrations.check({ schema: "s" })
      // A later version that breaks nothing, and one that does.
      const { latest } = Migrations
      yield* sql`UPDATE s.controlpublish_migrations SET migration_id = 999 WHERE migration_id = ${latest.id}`
      yield* Migrations.check({ schema: "s" })
      assert.deepStrictEqual(yield* Migrations.run({ schema: "s" }), [])
      yield* sql`UPDATE s.controlpublish_migrations SET migration_id = 1000 WHERE migration_id = 999`
      const newer = `the schema "s" has migration 1000, and this version, which knows ${latest.id}, cannot work with it: use a later version`
      assert.strictEqual((yield* Effect.flip(Migrations.check({ schema: "s" }))).message, newer)
      assert.strictEqual((yield* Effect.flip(Migrations.run({ schema: "s" }))).message, newer)
      yield* sql`DELETE FROM s.controlpublish_migrations WHERE migration_id > 1`
      const older = yield* Effect.flip(Migrations.check({ schema: "s" }))
      assert.strictEqual(older.message, `the schema "s" has migration 1, ${needs}`)
    }).pipe(Effect.provide(layerClient))
  )

  it.scoped("tells an application that embeds the outbox, or a node, when it starts", () =>
    Effect.gen(function* () {
      const start = <E>(layer: Layer.Layer<never, E, PgClient.PgClient | SqlClient.SqlClient>) =>
        Effect.map(Effect.flip(Layer.build(Layer.fresh(layer))), String)
      const outbox = Layer.discard(Postgres.layer({ schema: "s" }))
      const node = Layer.discard(PostgresAppliedEvents.layer({ schema: "s" }))
      const sql = yield* SqlClient.SqlClient
      assert.match(yield* start(outbox), /the schema "s" has no outbox: run "controlpublish migrate" first/)
      assert.match(yield* start(node), /the schema "s" has no tables of a node: run "controlpublish migrate --node" or/)
      yield* Migrations.run({ schema: "s" })
      yield* FleetMigrations.run({ schema: "s" })
      yield* Effect.scoped(Layer.build(Layer.merge(outbox, node)))
      yield* sql`DELETE FROM s.controlpublish_migrations WHERE migration_id > 1`
      yield* sql`DELETE FROM s.controlpublish_fleet_migrations WHERE migration_id > 1`
      const needs = Migrations.latest.id
      assert.match(
        yield* start(outbox),
        new RegExp(`the schema "s" has migration 1, and this version needs ${needs}: run`)
      )
      const { latest } = FleetMigrations
      assert.match(
        yield* start(node),
        new RegExp(`the schema "s" has the node's migration 1, and this version needs ${latest.id}: run`)
      )
      yield* sql`UPDATE s.controlpublish_fleet_migrations SET migration_id = 1000`
      assert.match(yield* start(node), /cannot work with it: use a later version/)
      // A later one that breaks nothing, and one that the role may not read.
      const lines: Array<string> = []
      const logger = Logger.replace(
        Logger.defaultLogger,
        Logger.make(({ message }) => void lines.push(String(message)))
      )
      yield* sql`UPDATE s.controlpublish_fleet_migrations SET migration_id = 999`
      yield* Effect.scoped(Layer.build(Layer.provide(node, logger)))
      assert.match(lines.join(), /has migration 999, made by a later version/)
      const role = yield* makeRole("app")
      yield* asOwner(`GRANT USAGE ON SCHEMA s TO ${role.name}`)
      yield* Effect.scoped(
        Layer.build(outbox.pipe(Layer.provide(PgClient.layer({ url: Redacted.make(role.url) })), Layer.provide(logger)))
      )
      assert.match(
        lines.at(-1) ?? "",
        /^Could not check the migrations of schema "s": permission denied .*controlpublish migrate --grant-append ROLE$/
      )
    }).pipe(Effect.provide(layerClient))
  )

  it.scopedLive("waits for no append and no pump of the version before, which go on", () =>
    Effect.gen(function* () {
      const psql = yield* rawClient
      const query = (text: string, values: ReadonlyArray<unknown> = []) =>
        Effect.promise(() => psql.query(text, values as Array<unknown>))
      yield* query(`${Migrations.print().split("-- Migration 2")[0]!}COMMIT;`)
      assert.strictEqual(yield* Migrations.current(), 1)
      const context = yield* Layer.build(
        Layer.merge(Outbox.layer, Pump.layerManual).pipe(
          Layer.provideMerge(unchecked),
          Layer.provideMerge(MemorySink.layer),
          Layer.provide(PumpConfig.layerDefaults)
        )
      )
      const outbox = Context.get(context, Outbox.Outbox)
      const append = (id: string) => outbox.append({ event_id: id, type: "x", tenant_id: id })
      yield* outbox.withTransaction(append("claimed"))
      // What holds locks on the table: a transaction that has appended, a claim, and a write-back of a failure.
      yield* Effect.scoped(
        Effect.gen(function* () {
          // As version 1 claims it: this version's claim needs what migration 3 brings.
          const claim = yield* rawClient
          yield* Effect.promise(() => claim.query("BEGIN; SELECT payload_json FROM control_events_outbox"))
          yield* query("BEGIN")
          yield* query(
            `INSERT INTO control_events_outbox (event_id, event_type, tenant_id, payload_json) VALUES ('open', 'x', 'open', '{"event_id":"open","type":"x"}')`
          )
          // As version 1 writes it.
          const failed = `UPDATE control_events_outbox SET last_error = result.error, attempt_count = attempt_count + 1,
            last_attempt_at = now(), next_attempt_at = to_timestamp(result.next_attempt_at::float8 / 1000),
            parked_at = CASE WHEN result.next_attempt_at IS NULL THEN now() END
            FROM unnest($1::bigint[], $2::text[], $3::float8[]) AS result (id, error, next_attempt_at)
            WHERE control_events_outbox.id = result.id`
          yield* query(failed, [[1], ["no"], [1]])
          const ran = yield* Migrations.run().pipe(Effect.timeout("10 seconds"))
          assert.deepStrictEqual(
            ran.map(({ id }) => id),
            [2, 3, 4, 5]
          )
          yield* query(failed, [[1], ["no"], [1]])
          yield* query("COMMIT")
        })
      )
      yield* outbox.withTransaction(append("after"))
      const report = yield* Context.get(context, Pump.Pump).drain
      assert.deepInclude({ ...report }, { published: 3, parked: 0 })
    }).pipe(Effect.provide(layerClient))
  )
})
