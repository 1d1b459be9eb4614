import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Option, Redacted, type Array as Arr } from "effect"
import { Outbox, OutboxAdmin, OutboxStore, Pump, PumpConfig } from "../../src/index.js"
import { Migrations, Postgres, PostgresOutboxAdmin } from "../../src/postgres/index.js"
import { MemorySink } from "../../src/testing/index.js"
import { layerClient, layerOutbox, rawClient } from "../support/postgres.js"
import { asOwner, connectTo, failureOf, makeRole } from "../support/roles.js"

const layer = Outbox.layer.pipe(Layer.provideMerge(layerOutbox("public")), Layer.provideMerge(layerClient))

/** A connection of a role that may INSERT, and nothing else. */
const inserter = Effect.gen(function* () {
  const role = yield* makeRole("insert")
  yield* asOwner(`GRANT INSERT ON control_events_outbox TO ${role.name}`)
  return yield* connectTo(role.url)
})

const row = (columns: Record<string, string> = {}) => {
  const all = { event_id: "'e1'", event_type: "'x'", payload_json: `'{"event_id":"e1","type":"x"}'`, ...columns }
  return `INSERT INTO control_events_outbox (${Object.keys(all).join()}) VALUES (${Object.values(all).join()})`
}

const rows = Effect.flatMap(
  PgClient.PgClient,
  (sql) => sql<Record<string, unknown>>`SELECT * FROM control_events_outbox`
)

describe("A row that SQL inserts", () => {
  it.scopedLive("needs INSERT on the table and no other right", () =>
    Effect.gen(function* () {
      const client = yield* inserter
      assert.isUndefined(yield* failureOf(client, row()))
      assert.deepInclude((yield* rows)[0], { id: "1", event_id: "e1", ordering_key: "" })
      for (const refused of ["SELECT FROM", "DELETE FROM", "UPDATE control_events_outbox SET id = 1; TABLE"]) {
        assert.match((yield* failureOf(client, `${refused} control_events_outbox`)) ?? "", /^42501/)
      }
      assert.match((yield* failureOf(client, "SELECT setval('control_events_outbox_id_seq', 1)")) ?? "", /^42501/)
    }).pipe(Effect.provide(layer))
  )

  it.scopedLive("has the pump's columns reset where the role may not update them", () =>
    Effect.gen(function* () {
      const client = yield* inserter
      const forged = {
        attempt_count: "7",
        last_error: "'no'",
        last_attempt_at: "now()",
        next_attempt_at: "'infinity'",
        parked_at: "'-infinity'",
        published_control_version: "1",
        published_at: "now()"
      }
      assert.isUndefined(yield* failureOf(client, row({ ...forged, tenant_id: "'other'" })))
      assert.deepInclude((yield* rows)[0], {
        attempt_count: 0,
        last_error: null,
        last_attempt_at: null,
        next_attempt_at: null,
        parked_at: null,
        published_control_version: null,
        published_at: null
      })
      // A restore by who may update them keeps them.
      yield* asOwner(row({ event_id: "'e2'", attempt_count: "7", parked_at: "now()" }))
      assert.deepInclude((yield* rows)[1], { attempt_count: 7 })
      const owner = yield* rawClient
      assert.match((yield* failureOf(owner, row({ event_id: "'e3'", next_attempt_at: "'infinity'" }))) ?? "", /^23514/)
    }).pipe(Effect.provide(layer))
  )

  it.scopedLive("has a finite time", () =>
    Effect.gen(function* () {
      const client = yield* inserter
      for (const instant of ["infinity", "-infinity", "294276-01-01", "4713-01-01 BC"]) {
        const failure = yield* failureOf(client, row({ created_at: `'${instant}'` }))
        assert.match(failure ?? "", /^23514 created_at is .*, which is no instant of the years 1 to 9999$/, instant)
      }
      assert.isUndefined(yield* failureOf(client, row({ created_at: "'9999-12-31T23:59:59-14:00'" })))
    }).pipe(Effect.provide(layer))
  )

  it.scopedLive("is bounded in every text and in the payload", () =>
    Effect.gen(function* () {
      const client = yield* inserter
      const columns = {
        event_id: 1024,
        event_type: 1024,
        tenant_id: 1024,
        stack_id: 1024,
        artifact_ref: 4096,
        checksum: 128,
        ordering_key: 1024,
        traceparent: 512
      }
      for (const [column, bytes] of Object.entries(columns)) {
        const failure = yield* failureOf(client, row({ [column]: `repeat('x', ${bytes + 1})` }))
        assert.strictEqual(failure, `23514 ${column} has ${bytes + 1} bytes, the maximum is ${bytes}`)
        assert.isUndefined(
          yield* failureOf(client, row({ event_id: `'fits-${column}'`, [column]: `repeat('x', ${bytes})` }))
        )
      }
      // Every text column has a bound.
      const sql = yield* PgClient.PgClient
      const found = yield* sql<{ name: string }>`SELECT attname AS name FROM pg_attribute
        WHERE attrelid = 'control_events_outbox'::regclass AND atttypid = 'text'::regtype AND attname <> 'last_error'`
      assert.sameMembers(
        found.map(({ name }) => name),
        Object.keys(columns)
      )
      const payload = (bytes: number) => `('"' || repeat('x', ${bytes - 2}) || '"')::json`
      const limit = 8 * 1024 * 1024
      assert.strictEqual(
        yield* failureOf(client, row({ payload_json: payload(limit + 1) })),
        `23514 the payload has ${limit + 1} bytes, the maximum is ${limit}`
      )
      assert.isUndefined(yield* failureOf(client, row({ payload_json: payload(limit) })))
    }).pipe(Effect.provide(layer))
  )

  it.scopedLive("brings no id", () =>
    Effect.gen(function* () {
      const client = yield* inserter
      const owner = yield* rawClient
      for (const id of ["-5", "1", "100"]) {
        for (const role of [client, owner]) {
          assert.match(
            (yield* failureOf(role, row({ id }))) ?? "",
            new RegExp(`^428C9 the row brings the id ${id}, and the outbox draws ids itself`)
          )
        }
      }
      const restoring = "SET controlpublish.restore = on"
      assert.isUndefined(yield* failureOf(client, restoring))
      assert.match((yield* failureOf(client, row({ id: "100" }))) ?? "", /^42501 the role .* may not restore/)
      assert.isUndefined(yield* failureOf(owner, restoring))
      assert.match((yield* failureOf(owner, row({ id: "0" }))) ?? "", /^23514/)
      for (const id of [100, 7, 99]) {
        assert.isUndefined(yield* failureOf(owner, row({ id: String(id), event_id: `'e${id}'` })))
      }
      assert.isUndefined(yield* failureOf(client, row({ event_id: "'next'" })))
      assert.deepStrictEqual(
        (yield* rows).map(({ event_id, id }) => [event_id, id]),
        [
          ["e100", "100"],
          ["e7", "7"],
          ["e99", "99"],
          ["next", "101"]
        ]
      )
    }).pipe(Effect.provide(layer))
  )

  it.scopedLive("runs nothing of the inserter's or of a stranger's, whatever the search_path", () =>
    Effect.gen(function* () {
      const client = yield* inserter
      yield* asOwner(`CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC;
        CREATE TABLE evil.called (what text); GRANT INSERT ON evil.called TO PUBLIC;
        GRANT CREATE ON SCHEMA public TO PUBLIC`)
      const functions = [
        "nextval(regclass) RETURNS bigint",
        "nextval(text) RETURNS bigint",
        "hashtext(text) RETURNS integer",
        "pg_advisory_xact_lock(integer, integer) RETURNS void",
        "pg_try_advisory_xact_lock_shared(integer, integer) RETURNS boolean",
        "pg_notify(text, text) RETURNS void",
        "octet_length(text) RETURNS integer",
        "current_setting(text) RETURNS text",
        "set_config(text, text, boolean) RETURNS text"
      ]
      for (const place of ["evil", "public"]) {
        for (const made of functions) {
          yield* asOwner(`CREATE FUNCTION ${place}.${made} LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO evil.called VALUES ('${place}.${made.replaceAll("'", "")}'); RETURN ${made.endsWith("void") ? "" : "NULL"}; END $$`)
        }
      }
      for (const path of ["evil, pg_catalog, public", "public, pg_catalog, evil", "evil, public", "public"]) {
        const statement = row({ event_id: `'${path}'` }).replace("INTO ", "INTO public.")
        assert.isUndefined(yield* failureOf(client, `SET search_path = ${path}; ${statement}`), path)
      }
      const sql = yield* PgClient.PgClient
      assert.deepStrictEqual(yield* sql`SELECT * FROM evil.called`, [])
      assert.deepStrictEqual(
        (yield* rows).map(({ id }) => id),
        ["1", "2", "3", "4"]
      )
    }).pipe(Effect.provide(layer))
  )

  it.scopedLive("commits durably whatever the session says", () =>
    Effect.gen(function* () {
      const client = yield* inserter
      const current = Effect.promise(() =>
        client.query<{ readonly now: string }>("SELECT current_setting('synchronous_commit') AS now")
      ).pipe(Effect.map((result) => result.rows[0]!.now))
      const settings: Array<string> = []
      for (const given of ["off", "local", "remote_write", "on", "remote_apply"]) {
        yield* failureOf(client, `SET synchronous_commit = ${given}`)
        yield* failureOf(client, `BEGIN; ${row({ event_id: `'${given}'` })}`)
        settings.push(yield* current)
        yield* failureOf(client, "COMMIT")
        assert.strictEqual(yield* current, given)
      }
      assert.deepStrictEqual(settings, ["on", "on", "on", "on", "remote_apply"])
    }).pipe(Effect.provide(layer))
  )

  it.scopedLive("is taken back by its own transaction alone, savepoints included", () =>
    Effect.gen(function* () {
      const client = yield* inserter
      yield* failureOf(client, row({ event_id: "'committed'" }))
      yield* failureOf(client, "BEGIN")
      yield* failureOf(client, row({ event_id: "'own'" }))
      yield* failureOf(client, "SAVEPOINT s")
      yield* failureOf(client, row({ event_id: "'nested'" }))
      yield* failureOf(client, "RELEASE s")
      // Of another key: it does not wait for the one that is open.
      yield* asOwner(row({ event_id: "'later'", ordering_key: "'other'" }))
      assert.isUndefined(
        yield* failureOf(client, "SELECT control_events_outbox_take_back('{committed,own,nested,later}')")
      )
      yield* failureOf(client, "COMMIT")
      assert.deepStrictEqual(
        (yield* rows).map(({ event_id }) => event_id),
        ["committed", "later"]
      )
    }).pipe(Effect.provide(layer))
  )
})

describe("Rows that were there before the bounds", () => {
  it.scopedLive(
    "are parked without their text, and stop nobody",
    () =>
      Effect.gen(function* () {
        const role = yield* makeRole("insert")
        const before = `${Migrations.print().split("-- Migration 3")[0]!}COMMIT;`
        yield* asOwner(`${before} GRANT INSERT ON control_events_outbox TO ${role.name};
        GRANT USAGE ON SEQUENCE control_events_outbox_id_seq TO ${role.name}`)
        const client = yield* connectTo(role.url)
        const megabytes = 24
        const large = `('"' || repeat('x', ${megabytes * 1024 * 1024}) || '"')::json`
        const insert = (columns: Record<string, string>) => failureOf(client, row(columns))
        assert.isUndefined(yield* insert({ event_id: "'payload'", payload_json: large }))
        assert.isUndefined(
          yield* insert({ event_id: "'trace'", traceparent: `repeat('x', ${megabytes * 1024 * 1024})` })
        )
        assert.isUndefined(yield* insert({ event_id: "'key'", ordering_key: `repeat('x', 300000)` }))
        assert.isUndefined(
          yield* insert({ event_id: "'never'", ordering_key: "'never'", next_attempt_at: "'infinity'" })
        )
        assert.isUndefined(yield* insert({ event_id: "'always'", created_at: "'infinity'" }))
        assert.isUndefined(yield* insert({}))
        yield* Migrations.run()
        const context = yield* Layer.build(
          Layer.mergeAll(Pump.layerManual, PostgresOutboxAdmin.layer()).pipe(
            Layer.provideMerge(Postgres.layer()),
            Layer.provideMerge(MemorySink.layer),
            Layer.provide(PumpConfig.layerDefaults)
          )
        )
        const store = Context.get(context, OutboxStore.OutboxStore)
        const { lanes } = yield* store.probe({ now: 0, afterParked: "pass" })
        const sizes = yield* Effect.scoped(
          Effect.map(
            store.claim({
              lanes: lanes as Arr.NonEmptyReadonlyArray<number>,
              now: 0,
              limit: 100,
              maxBytes: 1e9,
              holdFor: 10_000,
              afterParked: "pass"
            }),
            (claim) => (claim._tag === "Claim" ? JSON.stringify(claim.rows).length : -1)
          )
        )
        assert.isBelow(sizes, 5_000)
        assert.isAbove(sizes, 100)
        const report = yield* Context.get(context, Pump.Pump).drain
        // "never" and "always" are no events of the contract.
        assert.deepInclude({ ...report }, { published: 1, parked: 5 })
        const admin = Context.get(context, OutboxAdmin.OutboxAdmin)
        const parked = yield* store.parked({ limit: 10 })
        assert.deepStrictEqual(parked.map(({ error, eventId }) => [eventId, error]).slice(0, 3), [
          [
            "payload",
            `Invalid control event: the payload has ${megabytes * 1024 * 1024 + 2} bytes, the maximum is 8388608`
          ],
          ["trace", `Invalid control event: traceparent has ${megabytes * 1024 * 1024} bytes, the maximum is 512`],
          ["key", "Invalid control event: ordering_key has 300000 bytes, the maximum is 1024"]
        ])
        // Those who look get no more than a pump.
        assert.isBelow(JSON.stringify(yield* admin.events({}, { limit: 10 })).length, 5_000)
        assert.isBelow(JSON.stringify(yield* admin.overview({ limit: 1_000 })).length, 5_000)
        const detail = Option.getOrThrow(yield* admin.event("payload"))
        assert.deepInclude(detail, { payload: "", payloadOmitted: megabytes * 1024 * 1024 + 2 })
        assert.isUndefined(Option.getOrThrow(yield* admin.event("trace")).traceparent)
        yield* admin.discard("payload", { actor: "ann", reason: "too large" })
        const sql = yield* PgClient.PgClient
        const [kept] = yield* sql<{ text: string }>`SELECT discarded::text AS text FROM control_events_audit`
        assert.isBelow(kept!.text.length, 1_000)
      }).pipe(Effect.provide(layerClient)),
    300_000
  )
})

describe("Outbox.append", () => {
  it.scopedLive("needs INSERT, and SELECT of the event's id", () =>
    Effect.gen(function* () {
      const role = yield* makeRole("append")
      yield* asOwner(`GRANT INSERT ON control_events_outbox TO ${role.name};
        GRANT SELECT (event_id) ON control_events_outbox TO ${role.name}`)
      yield* Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        const event = (id: string) => ({ event_id: id, type: "x", tenant_id: id })
        yield* outbox.withTransaction(outbox.append(event("a")))
        yield* outbox.withTransaction(outbox.appendAll([event("b"), event("c")]))
        const kept = yield* outbox.withTransaction(
          Effect.zipRight(
            Effect.flip(outbox.appendAll([event("d"), event("a"), event("e")])),
            Effect.as(outbox.append(event("f")), "kept")
          )
        )
        assert.strictEqual(kept, "kept")
      }).pipe(
        Effect.provide(
          Outbox.layer.pipe(
            Layer.provide(Postgres.layer()),
            Layer.provide(PgClient.layer({ url: Redacted.make(role.url) }))
          )
        )
      )
      assert.deepStrictEqual(
        (yield* rows).map(({ event_id }) => event_id),
        ["a", "b", "c", "f"]
      )
    }).pipe(Effect.provide(layer))
  )
})
