import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { FleetMigrations, Migrations } from "../../src/postgres/index.js"
import { everyPart, nodeTable, sameForAll } from "../support/everyPart.js"
import { calledEvil, plantEvil } from "../support/evil.js"
import { eventually } from "../support/pump.js"
import { layerClient, layerDatabase, TestDatabase } from "../support/postgres.js"
import { asOwner, connectTo, failureOf, makeRole } from "../support/roles.js"

describe("With a schema ahead of pg_catalog that has everything that it has", () => {
  it.scopedLive(
    "the product calls nothing of it",
    () =>
      Effect.gen(function* () {
        const { name, url } = yield* TestDatabase
        yield* plantEvil
        yield* asOwner(`ALTER DATABASE ${name} SET search_path = evil, pg_catalog, public;
          ALTER DATABASE ${name} SET track_functions = 'all'`)
        // What is called is counted.
        const stranger = yield* connectTo(Redacted.value(url))
        assert.isUndefined(yield* failureOf(stranger, "SELECT length('x'), 1 + 1, count(*) FROM pg_class"))
        yield* Effect.promise(() => stranger.end())
        const control = ["length", "seen"]
        yield* eventually(
          "the calls of the control are counted",
          Effect.map(calledEvil, (called) => control.every((name) => called.includes(name)))
        )
        yield* asOwner("SELECT pg_catalog.pg_stat_reset()")

        yield* Effect.gen(function* () {
          yield* Migrations.run()
          yield* FleetMigrations.run()
          assert.strictEqual(yield* Migrations.current(), Migrations.latest.id)
        }).pipe(Effect.provide(PgClient.layer({ url })))
        yield* asOwner(`SET search_path = pg_catalog; ${nodeTable}`)
        yield* everyPart(sameForAll(Redacted.value(url)))
        // Sessions report when they end.
        yield* eventually(
          "all sessions have ended",
          Effect.map(
            asOwner(`SET search_path = pg_catalog; SELECT FROM pg_stat_activity
              WHERE datname = current_database() AND pid <> pg_backend_pid()`),
            (results) => (results as unknown as ReadonlyArray<{ readonly rowCount: number }>)[1]!.rowCount === 0
          )
        )
        assert.deepStrictEqual(yield* calledEvil, [])
      }).pipe(Effect.provide(layerDatabase)),
    300_000
  )
})

describe("What a stranger has put in the schema before", () => {
  const record = `CREATE FUNCTION record() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO stolen SELECT current_user; RETURN NEW; END $$;
    CREATE TABLE stolen (name text); GRANT INSERT ON stolen TO PUBLIC;`
  const remembering =
    "controlpublish_migrations (migration_id integer PRIMARY KEY, created_at timestamptz DEFAULT now(), name text)"
  const planted = {
    "a table that remembers migrations": {
      sql: `${record} CREATE TABLE ${remembering};
        CREATE TRIGGER record BEFORE INSERT ON controlpublish_migrations FOR EACH ROW EXECUTE FUNCTION record()`,
      message:
        /the table controlpublish_migrations belongs to the role test_stranger_.*, which owns neither the schema nor the database: migrate as that role if the outbox is its own$/
    },
    "a view in its place": {
      sql: `${record} CREATE FUNCTION steal() RETURNS integer LANGUAGE plpgsql AS $$
          BEGIN INSERT INTO stolen SELECT current_user; RETURN 999; END $$;
        CREATE VIEW controlpublish_migrations AS SELECT steal() AS migration_id; GRANT SELECT ON controlpublish_migrations TO PUBLIC`,
      message: /"public".controlpublish_migrations is not a plain table and was not created by a migration$/
    },
    "a table with a policy": {
      sql: `${record} CREATE TABLE ${remembering}; ALTER TABLE controlpublish_migrations ENABLE ROW LEVEL SECURITY`,
      message: /is not a plain table/
    },
    "a function of the outbox": {
      sql: `${record} CREATE FUNCTION control_events_outbox_max_payload_bytes() RETURNS integer LANGUAGE sql AS 'SELECT 1'`,
      message: /function "control_events_outbox_max_payload_bytes" already exists with same argument types$/
    }
  }
  for (const [what, { message, sql }] of Object.entries(planted)) {
    it.scopedLive(`is refused and runs nothing: ${what}`, () =>
      Effect.gen(function* () {
        const role = yield* makeRole("stranger")
        yield* asOwner("GRANT CREATE ON SCHEMA public TO PUBLIC")
        const stranger = yield* connectTo(role.url)
        assert.isUndefined(yield* failureOf(stranger, sql))
        const failure = yield* Effect.flip(Migrations.run())
        assert.strictEqual(failure._tag, "MigrationFailed")
        assert.match(failure.message, message)
        const client = yield* PgClient.PgClient
        assert.deepStrictEqual(yield* client`SELECT * FROM stolen`, [])
      }).pipe(Effect.provide(layerClient))
    )
  }
})
