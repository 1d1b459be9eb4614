import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Clock, Effect, Fiber, Layer, Option } from "effect"
import { OutboxAdmin, OutboxStore } from "../../src/index.js"
import { Postgres, PostgresOutboxAdmin } from "../../src/postgres/index.js"
import * as Names from "../../src/postgres/internal/names.js"
import { outboxAdminSuite } from "../support/outboxAdminSuite.js"
import { layerClient, layerOutbox, rawClient } from "../support/postgres.js"
import { operated, query } from "./support/operated.js"

// A name that breaks every statement that forgets to quote it.
const schema = `An "odd" $$schema$$.name's`

outboxAdminSuite("OutboxAdmin in PostgreSQL", () =>
  PostgresOutboxAdmin.layer({ schema }).pipe(Layer.provideMerge(layerOutbox(schema)), Layer.provide(layerClient))
)

const by = { actor: "ann", reason: "test" }

/** Rows with ids from 1: `n` is the row's number. */
const insert = (count: number, columns: Record<string, string> = {}) =>
  Effect.zipRight(
    query(
      `INSERT INTO control_events_outbox (event_id, event_type, payload_json, ${["ordering_key", ...Object.keys(columns)].join()})
        SELECT 'e' || nextval('numbers'), 'x', '{}', ${["'k' || currval('numbers') % 100", ...Object.values(columns)].join()}
        FROM generate_series(1, ${count})`
    ),
    query("ANALYZE control_events_outbox")
  )

const numbers = query("CREATE SEQUENCE numbers")

/** All pages of a filter, and how many there were. */
const pagesOf = (filter: OutboxAdmin.EventFilter, limit = 500) =>
  Effect.gen(function* () {
    const admin = yield* OutboxAdmin.OutboxAdmin
    const ids: Array<string> = []
    let cursor: string | undefined
    let pages = 0
    do {
      const page: OutboxAdmin.EventPage = yield* admin.events(filter, { limit, cursor })
      ids.push(...page.events.map(({ eventId }) => eventId))
      cursor = page.next
      pages++
    } while (cursor !== undefined)
    return { ids, pages }
  })

const prune = (retention: OutboxAdmin.Retention, limit = 10_000) =>
  Effect.gen(function* () {
    const admin = yield* OutboxAdmin.OutboxAdmin
    let total = 0
    let batches = 0
    for (;;) {
      const { more, removed } = yield* admin.prune(retention, { limit })
      total += removed
      batches++
      if (!more) return { total, batches }
    }
  })

const week = { _tag: "Age", age: "7 days" } as const

const old = { published_at: "now() - interval '8 days'", published_control_version: "1" }

const young = { published_at: "now()", published_control_version: "1" }

const parked = { parked_at: "now()" }

describe("OutboxAdmin in PostgreSQL, with many rows", () => {
  it.live("looks at a bounded number of rows for a page, and finds everything in the end", () =>
    Effect.gen(function* () {
      yield* numbers
      yield* insert(30_000, young)
      yield* insert(21_000)
      yield* insert(5_000, parked)
      yield* query(
        `UPDATE control_events_outbox SET event_type = 'rare' WHERE id IN (1, 2, 25000, 30001, 40000, 51001, 56000)`
      )
      yield* query(`UPDATE control_events_outbox SET next_attempt_at = now() WHERE id IN (30001, 40000)`)
      const all = ["e56000", "e51001", "e40000", "e30001", "e25000", "e2", "e1"]
      const { ids, pages } = yield* pagesOf({ type: "rare" })
      assert.deepStrictEqual(ids, all)
      // 20,000 rows a page.
      assert.isAtLeast(pages, 3)
      assert.isAtMost(pages, 4)
      assert.deepStrictEqual((yield* pagesOf({ type: "rare", state: "pending" })).ids, ["e40000", "e30001"])
      assert.deepStrictEqual((yield* pagesOf({ type: "rare", state: "parked" })).ids, ["e56000", "e51001"])
      assert.deepStrictEqual((yield* pagesOf({ type: "rare", orderingKey: "k1", state: "pending" })).ids, ["e30001"])
      assert.deepStrictEqual((yield* pagesOf({ state: "published", type: "rare" })).ids, ["e25000", "e2", "e1"])
      // Few that wait are one page, whatever else is pending; many are found all the same.
      assert.deepStrictEqual(yield* pagesOf({ state: "waiting" }), { ids: ["e40000", "e30001"], pages: 1 })
      yield* query(`UPDATE control_events_outbox SET next_attempt_at = now() WHERE id BETWEEN 30001 AND 50990`)
      const waiting = (yield* pagesOf({ state: "waiting" }, 5_000)).ids
      assert.deepStrictEqual(
        waiting,
        Array.from({ length: 20_990 }, (_, n) => `e${50_990 - n}`)
      )
      // Without a look into the rows every page is full.
      assert.strictEqual((yield* pagesOf({ state: "parked" })).pages, 10)
      // In chunks, each of them written down.
      const admin = yield* OutboxAdmin.OutboxAdmin
      assert.strictEqual(yield* admin.redrive({ orderingKey: "k1" }, by), 50)
      assert.strictEqual(yield* admin.redrive({}, by), 4_950)
      const { entries } = yield* admin.audit({ limit: 100 })
      const affected = entries
        .filter(({ filter }) => Object.keys(filter!).length === 0)
        .map(({ affected }) => affected!)
      assert.isAtLeast(affected.length, 5)
      assert.strictEqual(
        affected.reduce((sum, one) => sum + one, 0),
        4_950
      )
      assert.isTrue(affected.every((one) => one <= 1_000))
    }).pipe(Effect.provide(operated))
  )

  it.live("prunes in the order of the ids, and finds what lies behind rows that stay", () =>
    Effect.gen(function* () {
      yield* numbers
      yield* insert(100, old)
      yield* insert(1, young)
      yield* insert(100, old)
      yield* insert(12_000, parked)
      yield* insert(100, old)
      // Published late, as after a redrive: the front stops before them.
      yield* insert(12_000, young)
      yield* insert(100, old)
      yield* insert(50)
      yield* query(`INSERT INTO control_events_attempts (outbox_id, at, error)
        SELECT id, now(), 'no' FROM control_events_outbox WHERE id <= 101 OR parked_at IS NOT NULL`)
      assert.strictEqual((yield* prune(week, 30)).total, 400)
      const kept = yield* query(`SELECT count(*)::int AS rows, count(published_at)::int AS published,
        (SELECT count(*)::int FROM control_events_attempts) AS attempts FROM control_events_outbox`)
      assert.deepStrictEqual(kept, [{ rows: 24_051, published: 12_001, attempts: 12_001 }])
      // What was parked then, and was published long ago by now.
      yield* query(`UPDATE control_events_outbox SET parked_at = NULL, published_control_version = 2,
        published_at = now() - interval '8 days' WHERE id BETWEEN 300 AND 309`)
      assert.strictEqual((yield* prune(week)).total, 10)
      assert.isAtMost((yield* prune(week)).batches, 7)
    }).pipe(Effect.provide(operated))
  )

  it.scopedLive("prunes nothing while another process is at it, and waits for nobody", () =>
    Effect.gen(function* () {
      yield* numbers
      yield* insert(10, old)
      const admin = yield* OutboxAdmin.OutboxAdmin
      const other = yield* rawClient
      yield* Effect.promise(() =>
        other.query(`BEGIN; SELECT pg_advisory_xact_lock(${Names.make("public").orderLock}, -2)`)
      )
      assert.deepStrictEqual(yield* admin.prune(week, { limit: 5 }), { removed: 0, more: false })
      yield* Effect.promise(() => other.query("COMMIT"))
      assert.deepStrictEqual(yield* admin.prune(week, { limit: 5 }), { removed: 5, more: true })
    }).pipe(Effect.provide(operated))
  )

  it.scopedLive("leaves a row that is made pending while it prunes", () =>
    Effect.gen(function* () {
      yield* numbers
      yield* insert(2, old)
      const admin = yield* OutboxAdmin.OutboxAdmin
      const other = yield* rawClient
      // As the stream is restored from the outbox.
      yield* Effect.promise(() =>
        other.query(
          "BEGIN; UPDATE control_events_outbox SET published_at = NULL, published_control_version = NULL WHERE id = 1"
        )
      )
      const pruning = yield* Effect.fork(admin.prune(week, { limit: 5 }))
      const waits = query(`SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%doomed%'`)
      yield* Effect.repeat(waits, { until: (rows) => rows.length > 0 })
      yield* Effect.promise(() => other.query("COMMIT"))
      assert.strictEqual((yield* Fiber.join(pruning)).removed, 1)
      assert.deepStrictEqual(yield* query("SELECT event_id FROM control_events_outbox"), [{ event_id: "e1" }])
    }).pipe(Effect.provide(operated))
  )
})

describe("OutboxAdmin in PostgreSQL, by hand", () => {
  it.scopedLive("waits for a lane no longer than two seconds, and others can look meanwhile", () =>
    Effect.gen(function* () {
      yield* numbers
      yield* insert(1)
      const admin = yield* OutboxAdmin.OutboxAdmin
      const other = yield* rawClient
      const { laneLock } = Names.make("public")
      yield* Effect.promise(() =>
        other.query(`BEGIN; SELECT pg_advisory_xact_lock(${laneLock}, lane) FROM control_events_outbox`)
      )
      const parking = yield* Effect.fork(
        Effect.all([Effect.flip(admin.park("e1", by)), Effect.flip(admin.discard("e1", by))], { concurrency: 2 })
      )
      // Other files of the run wait for locks in databases of their own.
      const waits = query(
        `SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`
      )
      yield* Effect.repeat(waits, { until: (rows) => rows.length > 0 })
      assert.strictEqual((yield* admin.overview({ limit: 10 })).pending.value, 1)
      assert.lengthOf(yield* waits, 1)
      const failures = yield* Effect.timeout(Fiber.join(parking), "10 seconds")
      for (const failure of failures) {
        assert.deepInclude({ ...failure }, { _tag: "OutboxError", retryable: true } as never)
        assert.match(failure.message, /^A publish of the event's lane is in flight.*: try again\. .*lock timeout/)
      }
      assert.strictEqual(Option.getOrThrow(yield* admin.event("e1")).state, "pending")
      assert.deepStrictEqual((yield* admin.audit({ limit: 1 })).entries, [])
    }).pipe(Effect.provide(operated))
  )

  it.scopedLive("fails in time where the table is locked, and works on the same connections after", () =>
    Effect.gen(function* () {
      const admin = yield* OutboxAdmin.OutboxAdmin
      const other = yield* rawClient
      yield* Effect.promise(() => other.query("BEGIN; LOCK control_events_outbox IN ACCESS EXCLUSIVE MODE"))
      const failures = yield* Effect.all(
        [Effect.flip(admin.overview({ limit: 10 })), Effect.flip(admin.events({}, { limit: 10 }))],
        { concurrency: 2 }
      ).pipe(Effect.timeout("10 seconds"))
      for (const failure of failures) assert.match(failure.message, /canceling statement due to lock timeout/)
      yield* Effect.promise(() => other.query("COMMIT"))
      assert.strictEqual((yield* admin.overview({ limit: 10 })).pending.value, 0)
    }).pipe(Effect.provide(operated))
  )

  it.live("keeps the whole row of what it discards, its payload as it was", () =>
    Effect.gen(function* () {
      const admin = yield* OutboxAdmin.OutboxAdmin
      const payload = `{"b": 1,"a":[ 2 ],"b":1}`
      yield* query(`INSERT INTO control_events_outbox (event_id, event_type, tenant_id, payload_json, traceparent)
        VALUES ('e1', 'x', 't1', '${payload}', 'trace')`)
      yield* query(`INSERT INTO control_events_attempts (outbox_id, at, error) VALUES (1, now(), 'no')`)
      yield* admin.discard("e1", by)
      const [kept] = yield* query(`SELECT discarded->>'event_id' AS id, discarded->>'traceparent' AS trace,
        discarded->>'payload_json' AS payload, (SELECT count(*)::int FROM control_events_attempts) AS attempts
        FROM control_events_audit`)
      assert.deepStrictEqual(kept, { id: "e1", trace: "trace", payload, attempts: 0 })
    }).pipe(Effect.provide(operated))
  )

  it.live("counts in the time that the rows take which are pending, whatever the statistics say", () =>
    Effect.gen(function* () {
      yield* numbers
      yield* insert(20_000)
      const now = yield* Clock.currentTimeMillis
      // Everything was pending when they were taken.
      yield* query("ALTER TABLE control_events_outbox SET (autovacuum_enabled = false)")
      yield* query("UPDATE control_events_outbox SET published_at = now(), published_control_version = id")
      yield* query(
        "UPDATE control_events_outbox SET published_at = NULL, published_control_version = NULL WHERE id > 19990"
      )
      const scans = Effect.map(
        query(`SELECT seq_scan::int AS scans, idx_scan::int AS "indexScans", (SELECT idx_tup_read::int
            FROM pg_stat_user_indexes WHERE indexrelname = 'control_events_outbox_pkey') AS "walkedById"
          FROM pg_stat_user_tables WHERE relname = 'control_events_outbox'`),
        ([row]) => row as { readonly scans: number; readonly indexScans: number; readonly walkedById: number }
      )
      yield* query("SELECT pg_stat_force_next_flush()")
      const before = yield* scans
      // Connections of their own, which say what they did when they end.
      yield* Effect.gen(function* () {
        const admin = yield* OutboxAdmin.OutboxAdmin
        const store = yield* OutboxStore.OutboxStore
        assert.strictEqual((yield* admin.overview({ limit: 10_000 })).pending.value, 10)
        assert.strictEqual((yield* admin.events({ state: "pending" }, { limit: 100 })).events.length, 10)
        assert.strictEqual((yield* store.backlog({ limit: 10_000 })).pending.value, 10)
        assert.strictEqual(yield* admin.redrive({}, by), 0)
        const { lanes } = yield* store.probe({ now, afterParked: "pass" })
        assert.isTrue(Arr.isNonEmptyReadonlyArray(lanes))
        if (!Arr.isNonEmptyReadonlyArray(lanes)) return
        const options = { lanes, now, afterParked: "pass", limit: 500, maxBytes: 1_000_000, holdFor: 10_000 } as const
        const claim = yield* Effect.scoped(store.claim(options))
        assert.strictEqual(claim._tag === "Claim" ? claim.rows.length : 0, 10)
      }).pipe(Effect.provide(Layer.fresh(Layer.merge(PostgresOutboxAdmin.layer(), Postgres.layer()))))
      const ended = query(`SELECT FROM pg_stat_activity WHERE application_name = 'controlpublish'`)
      yield* Effect.repeat(ended, { until: (rows) => rows.length === 0 })
      const after = yield* scans
      assert.isAbove(after.indexScans, before.indexScans + 64)
      assert.strictEqual(after.scans, before.scans)
      // Once over the table would be all of its 20,000 rows.
      assert.isBelow(after.walkedById - before.walkedById, 20_000)
    }).pipe(Effect.provide(operated))
  )
})
