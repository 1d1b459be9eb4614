import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { Outbox, OutboxStore, Pump } from "../../src/index.js"
import { Postgres } from "../../src/postgres/index.js"
import { listen } from "../../src/postgres/internal/listener.js"
import * as Names from "../../src/postgres/internal/names.js"
import { MemorySink } from "../../src/testing/index.js"
import { appendAndHold, eventually, feedIds, layerPump } from "../support/pump.js"
import { layerClient, layerOutbox, rawClient, TestDatabase } from "../support/postgres.js"

// Nothing here may wait for a poll: what arrives was announced.
const layerTest = Layer.mergeAll(Outbox.layer, layerPump({ pollPeriod: "1 hour" })).pipe(
  Layer.provideMerge(layerOutbox("public")),
  Layer.provideMerge(layerClient)
)

const event = (id: string) => ({ event_id: id, type: "x", tenant_id: id })

const isPublished = (id: string) => Effect.map(feedIds, (ids) => ids.includes(id))

const armed = Effect.flatMap(PgClient.PgClient, (sql) =>
  Effect.map(
    sql`SELECT FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted AND objid = 0
      AND pid IN (SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_advisory_lock%')
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
    (rows) => rows.length > 0
  )
)

describe("WakeUp", () => {
  it.live("of an idle pump takes milliseconds from the commit", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      const delays: Array<number> = []
      for (let n = 0; n < 20; n++) {
        yield* eventually("the pump is armed", armed)
        yield* outbox.withTransaction(outbox.append(event(`e${n}`)))
        const committed = performance.now()
        yield* eventually(`e${n} is published`, isPublished(`e${n}`))
        delays.push(performance.now() - committed)
      }
      // Loose: it tells a wake-up from a poll, and leaves the milliseconds to the benchmark.
      assert.isBelow(delays.sort((a, b) => a - b)[10]!, 500)
    }).pipe(Effect.provide(layerTest))
  )

  it.live("is not lost by appends that come one after another", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      yield* Effect.forEach(
        Array.from({ length: 500 }, (_, n) => n),
        (n) => outbox.withTransaction(outbox.append(event(`e${n}`))),
        { concurrency: 8 }
      )
      yield* eventually(
        "all are published",
        Effect.map(feedIds, (ids) => ids.length === 500)
      )
    }).pipe(Effect.provide(layerTest))
  )

  it.scopedLive("comes for rows that psql inserts, and notifies only while a pump waits", () =>
    Effect.gen(function* () {
      const psql = yield* rawClient
      const heard: Array<string> = []
      psql.on("notification", ({ payload }) => heard.push(payload ?? ""))
      const [channel] = yield* Effect.flatMap(
        PgClient.PgClient,
        (sql) => sql<{
          channel: string
        }>`SELECT substring(prosrc FROM 'controlpublish_[0-9a-f]{8}') AS channel FROM pg_proc
          WHERE proname = 'control_events_outbox_after_insert'`
      )
      yield* Effect.promise(() => psql.query(`LISTEN ${channel!.channel}`))
      const insert = (id: string) =>
        Effect.promise(() =>
          psql.query(`INSERT INTO control_events_outbox (event_id, event_type, tenant_id, payload_json)
            VALUES ('${id}', 'x', 't', '{"event_id":"${id}","type":"x"}')`)
        )
      yield* insert("nobody-waits")
      assert.deepStrictEqual(heard, [])
      yield* Effect.gen(function* () {
        yield* eventually("the pump is armed", armed)
        yield* insert("p1")
        yield* eventually("p1 is published", isPublished("p1"))
        assert.deepStrictEqual(heard, ["append"])
      }).pipe(Effect.provide(layerPump({ pollPeriod: "1 hour" })))
    }).pipe(Effect.provide(layerOutbox("public").pipe(Layer.provideMerge(layerClient))))
  )

  it.live("comes while another transaction that appended stays open", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      // The pump has to arm itself anew, and finds an append that holds the lock.
      yield* eventually("the pump is armed", armed)
      const open = yield* appendAndHold(event("open"))
      for (let n = 0; n < 3; n++) {
        yield* outbox.withTransaction(outbox.append(event(`e${n}`)))
        yield* eventually(`e${n} is published`, isPublished(`e${n}`))
        yield* Effect.sleep("20 millis")
      }
      yield* open.commit
      yield* eventually("open is published", isPublished("open"))
    }).pipe(Effect.provide(layerTest))
  )

  it.live("comes back after the listening connection was lost", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const outbox = yield* Outbox.Outbox
      for (let n = 0; n < 3; n++) {
        yield* eventually("the pump is armed", armed)
        yield* sql`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE application_name = 'controlpublish' AND datname = current_database()`
        yield* Effect.sleep("20 millis")
        yield* eventually("the pump is armed again", armed)
        yield* outbox.withTransaction(outbox.append(event(`e${n}`)))
        yield* eventually(`e${n} is published`, isPublished(`e${n}`))
      }
    }).pipe(Effect.provide(layerTest))
  )

  it.live("is asked for only while a pump waits", () =>
    Effect.gen(function* () {
      const pump = yield* Pump.Pump
      yield* eventually("the pump is armed", armed)
      yield* pump.pause
      yield* eventually(
        "the pump is not armed any more",
        Effect.map(armed, (armed) => !armed)
      )
      yield* pump.resume
      yield* eventually("the pump is armed again", armed)
    }).pipe(Effect.provide(layerTest))
  )

  it.live("that cannot be had costs a poll now and then, and no more", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const { name, url } = yield* TestDatabase
      // One connection is enough to publish with, and too few to listen with as well.
      const role = `role_${name}`
      yield* sql.unsafe(`CREATE ROLE ${role} LOGIN PASSWORD 'x' CONNECTION LIMIT 1;
        GRANT ALL ON ALL TABLES IN SCHEMA public TO ${role}; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO ${role}`)
      const limited = new URL(Redacted.value(url))
      limited.username = role
      limited.password = "x"
      const client: PgClient.PgClient = Object.assign(Object.create(sql) as PgClient.PgClient, {
        config: { ...sql.config, url: Redacted.make(limited.href) }
      })
      let probes = 0
      yield* Effect.gen(function* () {
        const store = yield* OutboxStore.OutboxStore
        const counting = Layer.succeed(OutboxStore.OutboxStore, {
          ...store,
          probe: (options) => {
            probes++
            return store.probe(options)
          }
        } satisfies OutboxStore.OutboxStore["Type"])
        yield* Layer.build(layerPump({ pollPeriod: "1 hour", concurrency: 1 }).pipe(Layer.provide(counting)))
        yield* Effect.sleep("2 seconds")
      }).pipe(
        Effect.scoped,
        Effect.provide(Postgres.layer().pipe(Layer.provide(Layer.succeed(PgClient.PgClient, client))))
      )
      yield* sql.unsafe(`DROP OWNED BY ${role}; DROP ROLE ${role}`)
      assert.isBelow(probes, 20)
    }).pipe(Effect.provide(layerOutbox("public").pipe(Layer.provideMerge(layerClient))))
  )

  it.scopedLive("leaves no connection behind that cannot listen", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const names = { ...Names.make("public"), channel: "" }
      const failed = yield* Effect.flip(Effect.scoped(listen(sql.config, names, () => {})))
      assert.match(failed.message, /^Could not listen for appends: /)
      yield* eventually(
        "it is closed",
        Effect.map(
          sql`SELECT FROM pg_stat_activity WHERE application_name = 'controlpublish' AND datname = current_database()`,
          (rows) => rows.length === 0
        )
      )
    }).pipe(Effect.provide(layerClient))
  )

  it.live("comes for a redrive, from whichever process", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      const sink = yield* MemorySink.MemorySink
      yield* sink.rejectEvent("poison", { times: 1 })
      yield* outbox.withTransaction(outbox.append(event("poison")))
      yield* eventually(
        "it is parked",
        Effect.map(outbox.parked(), (parked) => parked.length === 1)
      )
      yield* eventually("the pump is armed", armed)
      // A store of its own has nothing in common with the pump's but the database.
      const other = Outbox.layer.pipe(Layer.provide(Layer.fresh(layerOutbox("public"))))
      yield* Effect.flatMap(Outbox.Outbox, (outbox) => outbox.redrive(["poison"])).pipe(Effect.provide(other))
      yield* eventually("it is published", isPublished("poison"))
    }).pipe(Effect.provide(layerTest))
  )

  it.live("reaches another pump when the armed one is gone", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      yield* eventually("the first pump is armed", armed)
      yield* Effect.gen(function* () {
        const pump = yield* Pump.Pump
        yield* eventually(
          "it idles",
          Effect.map(pump.status, (status) => status.state === "idle")
        )
      }).pipe(Effect.provide(Layer.fresh(layerPump({ pollPeriod: "1 hour" }))))
      yield* outbox.withTransaction(outbox.append(event("e1")))
      yield* eventually("e1 is published", isPublished("e1"))
    }).pipe(Effect.provide(layerTest))
  )
})
