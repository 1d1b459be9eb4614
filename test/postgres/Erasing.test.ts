import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, Layer, Option } from "effect"
import { ControlEvent, OutboxAdmin, Pump, PumpConfig } from "../../src/index.js"
import { Postgres } from "../../src/postgres/index.js"
import { MemorySink } from "../../src/testing/index.js"
import { rawClient } from "../support/postgres.js"
import { asOwner, connectTo, failureOf, makeRole } from "../support/roles.js"
import { operated, query } from "./support/operated.js"

const by = { actor: "ann", reason: "ticket 7" }

/** As SQL inserts rows that know nothing of the other columns. */
const insert = (id: string, payload: string) =>
  asOwner(`INSERT INTO control_events_outbox (event_id, event_type, tenant_id, payload_json)
    VALUES ('${id}', 'stack.activated', 't1', '${payload}')`)

const payloadOf = (id: string, name: string) =>
  `{"event_id":"${id}","type":"stack.activated","tenant_id":"t1","stack_id":"s1","version":7,"artifact_ref":"a/1","checksum":"sha256:${"0".repeat(64)}","name":"${name}"}`

/** What texts of JSON may have, and texts of PostgreSQL may not. */
const unstorable = ["\\u0000", "\\ud800"]

describe("Erasing in PostgreSQL", () => {
  it.live("leaves a valid event, also where the payload alone has its fields, and whatever else it has", () =>
    Effect.gen(function* () {
      const admin = yield* OutboxAdmin.OutboxAdmin
      const pump = yield* Pump.Pump
      yield* insert("e1", payloadOf("e1", "Ada"))
      for (const [index, text] of unstorable.entries()) yield* insert(`odd${index}`, payloadOf(`odd${index}`, text))
      assert.deepInclude({ ...(yield* pump.drain) }, { published: 3 })
      assert.strictEqual((yield* admin.erase("e1", by)).artifactRef, "a/1")
      const { payload, payloadBytes } = Option.getOrThrow(yield* admin.event("e1"))
      assert.strictEqual(payloadBytes, payload.length)
      const marker = Either.getOrThrow(ControlEvent.validateUnpublished(JSON.parse(payload)))
      assert.deepInclude({ ...marker }, { stack_id: "s1", version: 7, erased: true })
      for (const index of unstorable.keys()) {
        yield* admin.erase(`odd${index}`, by)
        const { payload } = Option.getOrThrow(yield* admin.event(`odd${index}`))
        assert.deepInclude(JSON.parse(payload), { event_id: `odd${index}`, tenant_id: "t1", erased: true })
        assert.notInclude(payload, "name")
      }
      // A feed that is made again from the outbox gets the marker.
      yield* query(`UPDATE control_events_outbox SET published_at = NULL, published_control_version = NULL
        WHERE event_id = 'e1'`)
      const again = Layer.fresh(
        Pump.layerManual.pipe(
          Layer.provide([MemorySink.layer, Postgres.layer()]),
          Layer.provide(PumpConfig.layerDefaults)
        )
      )
      const report = yield* Effect.provide(
        Effect.flatMap(Pump.Pump, (pump) => pump.drain),
        again
      )
      assert.deepInclude({ ...report }, { published: 1, parked: 0 })
    }).pipe(Effect.provide(operated))
  )

  it.live("erases a discarded payload from the audit, and keeps the entry and the rest of the row", () =>
    Effect.gen(function* () {
      const admin = yield* OutboxAdmin.OutboxAdmin
      yield* insert("e1", payloadOf("e1", "Ada"))
      yield* insert("odd", payloadOf("odd", unstorable[0]!))
      for (const id of ["e1", "odd"]) {
        yield* admin.discard(id, { actor: "bob", reason: "poison" })
        yield* admin.erase(id, by)
      }
      const kept = (yield* query(
        `SELECT event_id AS id, action, actor, reason, discarded::text AS row FROM control_events_audit ORDER BY id`
      )) as ReadonlyArray<Record<string, string>>
      assert.deepStrictEqual(
        kept.map(({ action, actor, id, reason }) => [id, action, actor, reason]),
        [
          ["e1", "discard", "bob", "poison"],
          ["e1", "erase", "ann", "ticket 7"],
          ["odd", "discard", "bob", "poison"],
          ["odd", "erase", "ann", "ticket 7"]
        ]
      )
      assert.notInclude(JSON.stringify(kept), "Ada")
      assert.deepInclude(JSON.parse(kept[0]!.row!), {
        event_id: "e1",
        tenant_id: "t1",
        payload_json: { event_id: "e1", erased: true }
      })
      assert.deepStrictEqual(JSON.parse(kept[2]!.row!), { payload_json: { event_id: "odd", erased: true } })
      assert.strictEqual((yield* Effect.flip(admin.erase("none", by)))._tag, "EventNotFound")
    }).pipe(Effect.provide(operated))
  )
})

describe("The audit", () => {
  it.scopedLive("refuses UPDATE, DELETE and TRUNCATE, whoever asks", () =>
    Effect.gen(function* () {
      const admin = yield* OutboxAdmin.OutboxAdmin
      yield* insert("e1", payloadOf("e1", "Ada"))
      yield* admin.discard("e1", by)
      yield* admin.record("pause", by)
      const role = yield* makeRole("service")
      yield* asOwner(`GRANT ALL ON ALL TABLES IN SCHEMA public TO ${role.name}`)
      const before = yield* query("SELECT * FROM control_events_audit ORDER BY id")
      const erased = `'{"payload_json":{"erased":true}}'`
      for (const client of [yield* connectTo(role.url), yield* rawClient]) {
        for (const statement of [
          "UPDATE control_events_audit SET reason = 'another'",
          "UPDATE control_events_audit SET discarded = NULL WHERE discarded IS NOT NULL",
          // No erasure, but what loses the rest of the row.
          `UPDATE control_events_audit SET discarded = ${erased} WHERE discarded IS NOT NULL`,
          `UPDATE control_events_audit SET discarded = ${erased} WHERE discarded IS NULL`,
          "DELETE FROM control_events_audit",
          "TRUNCATE control_events_audit",
          `INSERT INTO control_events_audit OVERRIDING SYSTEM VALUE SELECT * FROM control_events_audit
            ON CONFLICT (id) DO UPDATE SET actor = 'nobody'`
        ]) {
          assert.match((yield* failureOf(client, statement)) ?? "", /^42501 the audit of the outbox is only added to/)
        }
      }
      assert.deepStrictEqual(yield* query("SELECT * FROM control_events_audit ORDER BY id"), before)
    }).pipe(Effect.provide(operated))
  )
})
