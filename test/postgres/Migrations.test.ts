import * as SqlClient from "@effect/sql/SqlClient"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Migrations } from "../../src/postgres/index.js"
import { layerClient, rawClient } from "../support/postgres.js"

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

describe("Migrations", () => {
  it.effect("runs what is missing, once", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* Migrations.current({ schema: "s" }), 0)
      assert.deepStrictEqual(yield* Migrations.run({ schema: "s" }), [
        { id: 1, name: "initial" },
        { id: 2, name: "operating" }
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
      assert.deepStrictEqual(runs.map((ran) => ran.length).sort(), [0, 0, 0, 0, 2])
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
})
