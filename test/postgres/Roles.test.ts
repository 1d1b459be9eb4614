import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Redacted } from "effect"
import { FleetMigrations, Grants, Migrations, PayloadLimit } from "../../src/postgres/index.js"
import { plantEvil } from "../support/evil.js"
import * as Part from "../support/everyPart.js"
import { layerClient, layerDatabase, TestDatabase } from "../support/postgres.js"
import { asOwner, connectTo, failureOf, makeRole, sane } from "../support/roles.js"

/** Defaults of role or database that change what statements mean, or what they answer. */
const odd = {
  search_path: "evil, pg_catalog, public",
  default_transaction_isolation: "serializable",
  default_transaction_read_only: "on",
  default_transaction_deferrable: "on",
  DateStyle: "'SQL, DMY'",
  IntervalStyle: "sql_standard",
  TimeZone: "'Pacific/Chatham'",
  bytea_output: "escape",
  client_encoding: "'LATIN1'",
  standard_conforming_strings: "off",
  extra_float_digits: "-10",
  synchronous_commit: "off"
}

/** Those that end what takes a while. */
const impatient = { lock_timeout: "'1ms'", statement_timeout: "'4s'", idle_in_transaction_session_timeout: "'200ms'" }

/**
 * A database that belongs to somebody, a schema that somebody else may create in, the tables of a third one, and roles
 * that may do what is granted to them. Nothing is everybody's. Neighbours protect their rows.
 */
const strictWith = (hostility: "none" | "database" | "role") =>
  Effect.gen(function* () {
    const { name } = yield* TestDatabase
    const dba = yield* makeRole("dba")
    const owner = yield* makeRole("owner")
    const roles = yield* Effect.all({
      insert: makeRole("insert"),
      append: makeRole("append"),
      pump: makeRole("pump"),
      operate: makeRole("operate"),
      view: makeRole("view"),
      node: makeRole("node")
    })
    const all = Object.values(roles).map((role) => role.name)
    yield* asOwner(`
    ALTER DATABASE ${name} OWNER TO ${dba.name};
    REVOKE ALL ON DATABASE ${name} FROM PUBLIC;
    GRANT CONNECT ON DATABASE ${name} TO ${[owner.name, ...all].join()};
    REVOKE ALL ON SCHEMA public FROM PUBLIC;
    GRANT CREATE ON SCHEMA public TO ${owner.name};
    GRANT USAGE ON SCHEMA public TO ${owner.name} WITH GRANT OPTION;
    ALTER DEFAULT PRIVILEGES FOR ROLE ${owner.name} REVOKE ALL ON FUNCTIONS FROM PUBLIC;
    ALTER DEFAULT PRIVILEGES FOR ROLE ${owner.name} REVOKE ALL ON TABLES FROM PUBLIC;
    CREATE TABLE neighbour (id integer); ALTER TABLE neighbour ENABLE ROW LEVEL SECURITY;
    ALTER TABLE neighbour FORCE ROW LEVEL SECURITY`)
    if (hostility !== "none") {
      yield* plantEvil
      const everybody = [owner.name, ...all]
      const setFor = (whom: string) => (settings: Record<string, string>) =>
        Object.entries(settings).map(([setting, value]) => `ALTER ${whom} SET ${setting} = ${value}`)
      const database = `DATABASE ${name}`
      const inDatabase = (role: string) => `ROLE ${role} IN ${database}`
      const places = hostility === "database" ? [database] : everybody.map(inDatabase)
      // What the application's own transactions need time for is the application's to allow.
      const patient = { statement_timeout: "0", idle_in_transaction_session_timeout: "0" }
      const applications = [roles.insert, roles.append, roles.node].map((role) => inDatabase(role.name))
      yield* asOwner(
        [
          ...places.flatMap((place) => setFor(place)({ ...odd, ...impatient })),
          ...setFor(inDatabase(owner.name))(patient),
          ...applications.flatMap((place) => setFor(place)({ ...patient, lock_timeout: "0" }))
        ].join("; ")
      )
    }
    const asTableOwner = PgClient.layer({ url: Redacted.make(owner.url), maxConnections: 5 })
    const client = yield* connectTo(owner.url, sane)
    yield* Effect.gen(function* () {
      // Those that come second wait.
      yield* Effect.all([Migrations.run(), Migrations.run(), Migrations.run()], { concurrency: "unbounded" })
      yield* FleetMigrations.run()
      assert.isUndefined(yield* failureOf(client, Part.nodeTable))
      assert.isUndefined(
        yield* failureOf(client, `GRANT SELECT, INSERT, UPDATE, DELETE ON tenants TO ${roles.node.name}`)
      )
      yield* PayloadLimit.set(1_000_000)
      yield* Grants.run({
        append: [roles.append.name, roles.insert.name],
        pump: [roles.pump.name],
        operate: [roles.operate.name],
        view: [roles.view.name]
      })
      yield* Grants.runNode({ node: [roles.node.name] })
    }).pipe(Effect.provide(asTableOwner))
    yield* asOwner(`REVOKE CREATE ON SCHEMA public FROM ${owner.name}`)
    return { roles, all }
  })

const strict = strictWith("none")

const urlsOf = (roles: Record<keyof Part.Urls, { readonly url: string }>): Part.Urls => ({
  insert: roles.insert.url,
  append: roles.append.url,
  pump: roles.pump.url,
  operate: roles.operate.url,
  view: roles.view.url,
  node: roles.node.url
})

/** Each right that a role has on the objects of the schema, as something to revoke. */
const rightsOf = (role: string) =>
  Effect.map(
    Effect.flatMap(
      PgClient.PgClient,
      (sql) => sql<{ readonly right: string }>`
        SELECT format('%s ON %s %s', privilege_type, CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass) AS "right"
          FROM pg_class c, aclexplode(relacl) WHERE grantee = ${role}::regrole AND relname <> 'tenants'
        UNION ALL SELECT format('%s (%s) ON TABLE %s', privilege_type, string_agg(quote_ident(attname), ', '), attrelid::regclass)
          FROM pg_attribute, aclexplode(attacl) WHERE grantee = ${role}::regrole GROUP BY privilege_type, attrelid
        UNION ALL SELECT format('%s ON FUNCTION %s', privilege_type, p.oid::regprocedure)
          FROM pg_proc p, aclexplode(proacl) WHERE grantee = ${role}::regrole
        ORDER BY 1`
    ),
    (rows) => rows.map(({ right }) => right)
  )

/** What a part does without: without it nobody is told of a missing migration. */
const unneeded = ["append: SELECT ON TABLE controlpublish_migrations"]

describe("With the rights that are granted to it", () => {
  it.scopedLive(
    "every part works, on a database where nothing else is allowed",
    () =>
      Effect.gen(function* () {
        const { roles } = yield* strict
        yield* Part.everyPart(urlsOf(roles))
        // The audit is added to.
        const pump = yield* connectTo(roles.pump.url)
        for (const statement of [
          "DELETE FROM control_events_audit",
          "TRUNCATE control_events_audit",
          "UPDATE control_events_audit SET actor = 'nobody'",
          "CREATE TABLE mine ()",
          "CREATE SCHEMA mine",
          "CREATE TEMP TABLE mine ()"
        ]) {
          assert.match((yield* failureOf(pump, statement)) ?? "", /^42501/, statement)
        }
      }).pipe(Effect.provide(layerDatabase)),
    300_000
  )

  for (const level of ["database", "role"] as const) {
    it.scopedLive(
      `every part works under hostile defaults of the ${level}`,
      () =>
        Effect.gen(function* () {
          const { roles } = yield* strictWith(level)
          yield* Part.everyPart(urlsOf(roles))
          const { rows } = (yield* asOwner(`SELECT count(*)::int AS rows,
            count(*) FILTER (WHERE created_at BETWEEN now() - interval '1 hour' AND now())::int AS recent FROM control_events_outbox`)) as unknown as {
            readonly rows: ReadonlyArray<object>
          }
          assert.deepStrictEqual(rows, [{ rows: 1, recent: 1 }])
        }).pipe(Effect.provide(layerDatabase)),
      300_000
    )
  }

  it.scopedLive(
    "no part has a right that it does not need",
    () =>
      Effect.gen(function* () {
        const { roles } = yield* strict
        // Events in all three states.
        const reset = asOwner(`TRUNCATE control_events_outbox, control_events_attempts, applied_events, tenants;
          UPDATE applied_position SET feed = '', control_version = 0, marked_after = 0;
          INSERT INTO control_events_outbox (event_id, event_type, tenant_id, payload_json, parked_at, last_error)
          VALUES ('invalid', 'x', 't2', '{}', now(), 'no')`)
        const pending = asOwner(`INSERT INTO control_events_outbox (event_id, event_type, tenant_id, payload_json)
          SELECT 'p' || n, 'x', 't' || n, '{}' FROM generate_series(1, 3) n; DELETE FROM control_events_outbox WHERE event_id = 'invalid'`)
        const published =
          asOwner(`INSERT INTO control_events_outbox (event_id, event_type, tenant_id, payload_json, published_at, published_control_version)
          VALUES ('published', 'x', 't3', '{}', now(), 1)`)
        const parts = {
          append: (url: string) => Part.appendByProgram(url, ["a", "b", "c"]),
          view: Part.look,
          operate: (url: string) => Effect.zipRight(published, Part.operate(url)),
          // The admin API of serve is the pump's.
          pump: (url: string) =>
            Effect.all([pending, Part.publishOnce(url), reset, published, Part.operate(url)], { discard: true }),
          node: Part.node
        } satisfies Record<string, (url: string) => Effect.Effect<void, unknown, TestDatabase>>
        const run = (part: (url: string) => Effect.Effect<void, unknown, TestDatabase>, url: string) => part(url)
        const superfluous: Array<string> = []
        for (const [kind, part] of Object.entries(parts)) {
          const role = roles[kind as keyof typeof parts]
          yield* reset
          yield* run(part, role.url)
          for (const right of yield* rightsOf(role.name)) {
            yield* asOwner(`REVOKE ${right} FROM ${role.name} CASCADE`)
            yield* reset
            if (Exit.isSuccess(yield* Effect.exit(run(part, role.url)))) superfluous.push(`${kind}: ${right}`)
            yield* asOwner(`GRANT ${right} TO ${role.name}`)
          }
        }
        assert.deepStrictEqual(superfluous, unneeded)
      }).pipe(Effect.provide(layerClient)),
    300_000
  )

  it.scopedLive("append by SQL needs no more than the columns of an event", () =>
    Effect.gen(function* () {
      const { roles } = yield* strict
      const client = yield* connectTo(roles.insert.url)
      const insert = (columns: string, values: string) =>
        failureOf(
          client,
          `INSERT INTO control_events_outbox (event_id, event_type, payload_json, ${columns}) VALUES ('e', 'x', '{}', ${values})`
        )
      for (const column of ["id", "attempt_count", "published_control_version"]) {
        assert.match((yield* insert(column, "1")) ?? "", /^42501/, column)
      }
      assert.isUndefined(yield* insert("tenant_id, created_at", "'t', now()"))
    }).pipe(Effect.provide(layerDatabase))
  )
})

describe("Grants", () => {
  const granting = (url: string, options: Grants.Options) =>
    Effect.provide(Effect.flip(Grants.run(options)), PgClient.layer({ url: Redacted.make(url) }))

  it.scopedLive("are refused to who does not own the tables, for roles that are missing, and before the tables", () =>
    Effect.gen(function* () {
      const { url } = yield* TestDatabase
      const missing = yield* granting(Redacted.value(url), { view: ["nobody"] })
      assert.strictEqual(missing._tag, "GrantFailed")
      assert.strictEqual(
        missing.message,
        'Could not grant rights in schema "public": the table control_events_outbox is missing: migrate first'
      )
      yield* Migrations.run()
      const stranger = yield* makeRole("stranger")
      yield* asOwner(`GRANT SELECT ON control_events_outbox TO ${stranger.name}`)
      assert.match(
        (yield* granting(stranger.url, { view: [stranger.name] })).message,
        /the tables belong to the role .*: grant as that role$/
      )
      const both = { view: [stranger.name], pump: ['no"body'] }
      assert.match((yield* granting(Redacted.value(url), both)).message, /role "no"body" does not exist$/)
      const sql = yield* PgClient.PgClient
      const [row] = yield* sql<{ may: boolean }>`
        SELECT has_table_privilege(${stranger.name}, 'control_events_audit', 'SELECT') AS may`
      assert.isFalse(row!.may)
    }).pipe(Effect.provide(layerClient))
  )

  it.scopedLive("quote every name, and print what they run", () =>
    Effect.gen(function* () {
      const schema = `a "b'c`
      const name = `ro"le'; DROP TABLE x; --`
      yield* Migrations.run({ schema })
      yield* FleetMigrations.run({ schema })
      const options = { schema, append: [name], pump: [name, name], operate: [name], view: [name] }
      yield* Effect.acquireUseRelease(
        asOwner(`CREATE ROLE "ro""le'; DROP TABLE x; --" LOGIN`),
        () =>
          Effect.gen(function* () {
            yield* asOwner(Grants.print(options))
            yield* asOwner(Grants.printNode({ schema, node: [name] }))
            yield* Grants.run(options)
            yield* Grants.runNode({ schema, node: [name] })
            const sql = yield* PgClient.PgClient
            const [row] = yield* sql<{ may: boolean }>`SELECT has_column_privilege(${name},
              ${`"a ""b'c".control_events_outbox`}, 'published_at', 'UPDATE') AS may`
            assert.isTrue(row!.may)
          }),
        () => asOwner(`DROP OWNED BY "ro""le'; DROP TABLE x; --"; DROP ROLE "ro""le'; DROP TABLE x; --"`)
      )
    }).pipe(Effect.provide(layerClient))
  )
})
