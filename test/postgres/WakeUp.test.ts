import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer } from "effect"
import { Outbox, Pump } from "../../src/index.js"
import { MemorySink } from "../../src/testing/index.js"
import { eventually, feedIds, layerPump } from "../support/pump.js"
import { layerClient, layerOutbox, rawClient } from "../support/postgres.js"

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
      const appended = yield* Deferred.make<void>()
      const finish = yield* Deferred.make<void>()
      // Drained first: the pump arms itself anew, and finds an append that holds the lock.
      yield* eventually("the pump is armed", armed)
      const open = yield* Effect.forkDaemon(
        outbox.withTransaction(
          Effect.gen(function* () {
            yield* outbox.append(event("open"))
            yield* Deferred.succeed(appended, undefined)
            yield* Deferred.await(finish)
          })
        )
      )
      yield* Deferred.await(appended)
      for (let n = 0; n < 3; n++) {
        yield* outbox.withTransaction(outbox.append(event(`e${n}`)))
        yield* eventually(`e${n} is published`, isPublished(`e${n}`))
        yield* Effect.sleep("20 millis")
      }
      yield* Deferred.succeed(finish, undefined)
      yield* Fiber.join(open)
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
