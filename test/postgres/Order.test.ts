import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Random } from "effect"
import { Outbox, OutboxStore, Pump, PumpConfig } from "../../src/index.js"
import { MemorySink } from "../../src/testing/index.js"
import { appendAndHold, eventually, feedIds, layerPump } from "../support/pump.js"
import { layerClient, layerOutbox, rawClient } from "../support/postgres.js"

const manual = Layer.mergeAll(Outbox.layer, Pump.layerManual).pipe(
  Layer.provideMerge(MemorySink.layer),
  Layer.provideMerge(layerOutbox("public")),
  Layer.provideMerge(layerClient),
  Layer.provide(PumpConfig.layerDefaults)
)

const event = (id: string, key: string) => ({ event_id: id, type: "x", tenant_id: key })

const keysOfDistinctLanes = (keys: ReadonlyArray<string>) =>
  Effect.flatMap(PgClient.PgClient, (sql) =>
    Effect.map(
      sql<{ lane: number; key: string }>`
        SELECT DISTINCT ON (1) hashtext(key) & 63 AS lane, key FROM unnest(${keys as Array<string>}::text[]) key`,
      (rows) => rows.map((row) => row.key)
    )
  )

describe("Order", () => {
  it.live("of a key is commit order, with writers that commit in another order than they began", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const outbox = yield* Outbox.Outbox
      yield* sql`CREATE TABLE oracle (key text PRIMARY KEY, position integer NOT NULL)`
      yield* sql`CREATE TABLE committed (event_id text, key text, position integer)`
      const keys = ["a", "b", "c"]
      yield* Effect.forEach(keys, (key) => sql`INSERT INTO oracle VALUES (${key}, 0)`)

      // The row lock is held until commit and taken after the append, so that positions are in commit order.
      const write = (id: string, key: string) =>
        Effect.gen(function* () {
          yield* sql`SELECT 1`
          yield* Effect.sleep(yield* Random.nextIntBetween(0, 15))
          yield* outbox.append(event(id, key))
          yield* Effect.sleep(yield* Random.nextIntBetween(0, 3))
          const [row] = yield* sql<{ position: number }>`
            UPDATE oracle SET position = position + 1 WHERE key = ${key} RETURNING position`
          yield* sql`INSERT INTO committed VALUES (${id}, ${key}, ${row!.position})`
          if (yield* Random.nextBoolean) return yield* Effect.fail("rolled back")
        }).pipe(sql.withTransaction, Effect.ignore)

      yield* Effect.forEach(
        Array.from({ length: 400 }, (_, n) => n),
        (n) => write(`e${n}`, keys[n % keys.length]!),
        { concurrency: 16, discard: true }
      )
      const committed = yield* sql<{ event_id: string; key: string }>`SELECT * FROM committed ORDER BY key, position`
      assert.isAbove(committed.length, 100)
      yield* eventually(
        "everything is published",
        Effect.map(feedIds, (ids) => ids.length === committed.length)
      )
      const feed = yield* Effect.flatMap(MemorySink.MemorySink, ({ feed }) => feed)
      for (const key of keys) {
        assert.deepStrictEqual(
          feed.filter((entry) => entry.orderingKey === key).map((entry) => entry.eventId as string),
          committed.filter((row) => row.key === key).map((row) => row.event_id)
        )
      }
    }).pipe(
      Effect.provide(
        Layer.mergeAll(Outbox.layer, layerPump({ batchSize: 5, pollPeriod: "5 millis" })).pipe(
          Layer.provideMerge(layerOutbox("public")),
          Layer.provideMerge(layerClient)
        )
      )
    )
  )

  it.live("of a key makes its second writer wait for the first, and no other key's", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const outbox = yield* Outbox.Outbox
      const first = yield* appendAndHold(event("first", "k"))
      const second = yield* Effect.fork(sql.withTransaction(outbox.append(event("second", "k"))))
      yield* sql.withTransaction(outbox.append(event("other", "l")))
      yield* Effect.flatMap(Pump.Pump, (pump) => pump.drain)
      assert.deepStrictEqual(yield* feedIds, ["other"])
      yield* eventually(
        "the second writer waits for an advisory lock",
        Effect.map(
          sql`SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
          (rows) => rows.length === 1
        )
      )
      yield* first.commit
      yield* Fiber.join(second)
      yield* Effect.flatMap(Pump.Pump, (pump) => pump.drain)
      assert.deepStrictEqual(yield* feedIds, ["other", "first", "second"])
    }).pipe(Effect.provide(manual))
  )

  it.scopedLive("holds for rows that psql inserts, with four columns and defaults for the rest", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      const psql = yield* rawClient
      const insert = (id: string) =>
        Effect.promise(() =>
          psql.query(
            `INSERT INTO control_events_outbox (event_id, event_type, tenant_id, payload_json)
             VALUES ('${id}', 'tenant.created', 't1', '{"event_id":"${id}","type":"tenant.created","tenant_id":"t1"}')`
          )
        )
      yield* insert("p1")
      yield* outbox.withTransaction(outbox.append(event("o1", "t1")))
      yield* Effect.promise(() => psql.query("BEGIN"))
      yield* insert("p2")
      const waiting = yield* Effect.fork(outbox.withTransaction(outbox.append(event("o2", "t1"))))
      yield* Effect.sleep("50 millis")
      yield* Effect.promise(() => psql.query("COMMIT"))
      yield* Fiber.join(waiting)
      const row = yield* Effect.promise(() =>
        psql.query<{ ordering_key: string; recent: boolean; attempt_count: number; same_lane: boolean }>(
          `SELECT ordering_key, created_at > now() - interval '1 minute' AS recent, attempt_count,
             lane = (SELECT lane FROM control_events_outbox WHERE event_id = 'o1') AS same_lane
           FROM control_events_outbox WHERE event_id = 'p1'`
        )
      )
      assert.deepInclude(row.rows[0], { ordering_key: "t1", recent: true, attempt_count: 0, same_lane: true })
      yield* Effect.flatMap(Pump.Pump, (pump) => pump.drain)
      assert.deepStrictEqual(yield* feedIds, ["p1", "o1", "p2", "o2"])
    }).pipe(Effect.provide(manual))
  )

  it.scopedLive("survives positions that moved on while an old id was still open", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const outbox = yield* Outbox.Outbox
      const pump = yield* Pump.Pump
      const [key, ...others] = yield* keysOfDistinctLanes(Array.from({ length: 200 }, (_, n) => `k${n}`))
      // Begins before the early writer and ends while that is still open: its end moves the oldest xid that snapshots
      // see as running on, up to the early writer's and no further.
      const older = yield* rawClient
      yield* Effect.promise(() => older.query("BEGIN; SELECT pg_current_xact_id()"))
      const open = yield* appendAndHold(event("early", key!))
      // Other keys go on, in lanes of their own and in that one, and the pump with them.
      const [found] = yield* sql<{ sameLane: string }>`
        SELECT 'other' || n AS "sameLane" FROM generate_series(1, 10000) n
        WHERE hashtext('other' || n) & 63 = hashtext(${key!}) & 63 LIMIT 1`
      for (let round = 0; round < 5; round++) {
        yield* outbox.withTransaction(
          outbox.appendAll([
            ...others.map((other) => event(`${other}-${round}`, other)),
            event(`same-lane-${round}`, found!.sameLane)
          ])
        )
        yield* pump.drain
        if (round === 2) yield* Effect.promise(() => older.query("COMMIT"))
      }
      yield* open.commit
      yield* outbox.withTransaction(outbox.append(event("late", key!)))
      yield* pump.drain
      const ids = yield* feedIds
      assert.deepStrictEqual(ids.slice(-2), ["early", "late"])
    }).pipe(Effect.provide(manual))
  )

  it.live("behind a parked event survives a redrive by hand", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const outbox = yield* Outbox.Outbox
      const pump = yield* Pump.Pump
      const sink = yield* MemorySink.MemorySink
      yield* sink.rejectEvent("k1", { times: 1 })
      yield* outbox.withTransaction(outbox.appendAll([event("k1", "k"), event("k2", "k")]))
      for (let round = 0; round < 5; round++) {
        yield* outbox.withTransaction(outbox.append(event(`other${round}`, "other")))
        yield* pump.drain
      }
      yield* sql`UPDATE control_events_outbox SET parked_at = NULL, next_attempt_at = NULL WHERE event_id = 'k1'`
      yield* pump.drain
      assert.deepStrictEqual(
        (yield* feedIds).filter((id) => id.startsWith("k")),
        ["k1", "k2"]
      )
    }).pipe(
      Effect.provide(
        Layer.mergeAll(Outbox.layer, Pump.layerManual).pipe(
          Layer.provideMerge(MemorySink.layer),
          Layer.provideMerge(layerOutbox("public")),
          Layer.provideMerge(layerClient),
          Layer.provide(PumpConfig.layer({ afterParked: "wait" }))
        )
      )
    )
  )

  it.live("survives a database that is older than it was, after a restore", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const outbox = yield* Outbox.Outbox
      const pump = yield* Pump.Pump
      for (let round = 0; round < 5; round++) {
        yield* outbox.withTransaction(outbox.append(event(`before${round}`, "k")))
        yield* pump.drain
      }
      yield* sql`TRUNCATE control_events_outbox RESTART IDENTITY`
      yield* outbox.withTransaction(outbox.append(event("after", "k")))
      yield* pump.drain
      yield* pump.drain
      assert.strictEqual((yield* feedIds).at(-1), "after")
    }).pipe(Effect.provide(manual))
  )

  it.live("survives a redrive below the positions", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      const pump = yield* Pump.Pump
      const sink = yield* MemorySink.MemorySink
      yield* sink.rejectEvent("poison", { times: 1 })
      yield* outbox.withTransaction(outbox.append(event("poison", "k")))
      for (let round = 0; round < 5; round++) {
        yield* outbox.withTransaction(outbox.append(event(`e${round}`, "k")))
        yield* pump.drain
      }
      yield* outbox.redrive(["poison"])
      yield* pump.drain
      assert.strictEqual((yield* feedIds).at(-1), "poison")
    }).pipe(Effect.provide(manual))
  )

  it.live("of batches over the same keys in other orders makes no deadlock", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      const keys = Array.from({ length: 200 }, (_, n) => `k${n}`)
      yield* Effect.forEach(
        Array.from({ length: 24 }, (_, n) => n),
        (n) =>
          Effect.flatMap(Random.shuffle(keys), (shuffled) =>
            outbox.withTransaction(outbox.appendAll(Array.from(shuffled, (key) => event(`${key}-${n}`, key))))
          ),
        { concurrency: 8 }
      )
      assert.deepStrictEqual(
        yield* Effect.map(
          Effect.flatMap(Pump.Pump, (pump) => pump.drain),
          (r) => r.published
        ),
        4800
      )
    }).pipe(Effect.provide(manual))
  )

  it.live("of single appends can deadlock, which is an error that says a retry helps", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      const both = yield* Effect.makeLatch(false)
      let arrived = 0
      const cross = (n: number, first: string, second: string) =>
        outbox.withTransaction(
          Effect.gen(function* () {
            yield* outbox.append(event(`${first}${n}`, first))
            if (++arrived === 2) yield* both.open
            yield* both.await
            yield* outbox.append(event(`${second}${n}`, second))
          })
        )
      const exits = yield* Effect.all([Effect.either(cross(1, "a", "b")), Effect.either(cross(2, "b", "a"))], {
        concurrency: 2
      })
      const errors = exits.flatMap((exit) => (exit._tag === "Left" ? [exit.left] : []))
      assert.strictEqual(errors.length, 1)
      assert.instanceOf(errors[0], OutboxStore.OutboxError)
      assert.deepInclude({ ...errors[0] }, { retryable: true })
      assert.match(errors[0].message, /deadlock detected \(40P01\)/)
    }).pipe(Effect.provide(manual))
  )

  it.live("of 20,000 keys in one transaction needs no more locks than the server has", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      const ids = yield* outbox.withTransaction(
        outbox.appendAll(Array.from({ length: 20_000 }, (_, n) => event(`e${n}`, `k${n}`)))
      )
      assert.strictEqual(ids.length, 20_000)
    }).pipe(Effect.provide(manual))
  )
})
