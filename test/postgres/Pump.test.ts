import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Logger, LogLevel, Random, Redacted, Scope } from "effect"
import { ControlVersion, Outbox, OutboxStore, Pump, PumpConfig, Sink } from "../../src/index.js"
import { Postgres } from "../../src/postgres/index.js"
import { MemorySink } from "../../src/testing/index.js"
import { eventually, feedIds, layerPump } from "../support/pump.js"
import { layerClient, layerOutbox, TestDatabase } from "../support/postgres.js"
import { freezingProxy } from "../support/proxy.js"

const quick = PumpConfig.layer({ retry: PumpConfig.defaultRetry, pollPeriod: "20 millis", batchSize: 16 }).pipe(
  Layer.orDie
)

const event = (id: string, key: string) => ({ event_id: id, type: "x", tenant_id: key })

const database = layerOutbox("public").pipe(Layer.provideMerge(layerClient))

const terminate = (where: string) =>
  Effect.flatMap(PgClient.PgClient, (sql) =>
    sql.unsafe(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE application_name = 'controlpublish' AND datname = current_database() AND ${where}`)
  )

const unpublished = Effect.flatMap(PgClient.PgClient, (sql) =>
  Effect.map(
    sql<{ count: number }>`SELECT count(*)::int AS count FROM control_events_outbox WHERE published_at IS NULL`,
    ([row]) => row!.count
  )
)

/** Rows whose version is not the feed's, or whose version and time do not go together. */
const assertRecorded = Effect.gen(function* () {
  const sql = yield* PgClient.PgClient
  const { feed } = yield* MemorySink.MemorySink
  const rows = yield* sql<{ event_id: string; version: string; ordering_key: string }>`
    SELECT event_id, published_control_version AS version, ordering_key FROM control_events_outbox ORDER BY id`
  const entries = yield* feed
  assert.deepStrictEqual(
    new Map(rows.map((row) => [row.event_id, Number(row.version)])),
    new Map(entries.map((entry) => [entry.eventId as string, entry.version as number]))
  )
  for (const key of new Set(rows.map((row) => row.ordering_key))) {
    assert.deepStrictEqual(
      entries.filter((entry) => entry.orderingKey === key).map((entry) => entry.eventId as string),
      rows.filter((row) => row.ordering_key === key).map((row) => row.event_id)
    )
  }
})

describe("Pumps on PostgreSQL", () => {
  it.live("share the work: each event once, order per key, versions recorded", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      const sink = yield* Sink.Sink
      // Slow enough that all of them meet.
      const slow = Layer.succeed(Sink.Sink, {
        ...sink,
        publish: (batch) => Effect.delay(sink.publish(batch), "2 millis")
      } satisfies Sink.Sink["Type"])
      const onePump = Effect.scoped(
        Effect.flatMap(Layer.build(Layer.fresh(Pump.layer.pipe(Layer.provide(quick), Layer.provide(slow)))), () =>
          eventually(
            "all are published",
            Effect.map(unpublished, (count) => count === 0 && done)
          )
        )
      )
      let done = false
      const append = Effect.forEach(
        Array.from({ length: 60 }, (_, n) => n),
        (n) =>
          outbox.withTransaction(
            outbox.appendAll(Array.from({ length: 25 }, (_, i) => event(`e${n}-${i}`, `k${(n * 25 + i) % 40}`)))
          ),
        { concurrency: 4 }
      ).pipe(Effect.tap(() => Effect.sync(() => (done = true))))
      yield* Effect.all([append, onePump, onePump, onePump], { concurrency: "unbounded" })
      assert.strictEqual((yield* feedIds).length, 1500)
      yield* assertRecorded
    }).pipe(
      Effect.provide(
        Outbox.layer.pipe(
          Layer.provideMerge(MemorySink.layer),
          Layer.provideMerge(database),
          Layer.provide(Logger.minimumLogLevel(LogLevel.None))
        )
      )
    )
  )

  it.live("survive connections that are lost at any moment", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      const total = 1000
      yield* Effect.forEach(
        Array.from({ length: total / 20 }, (_, n) => n),
        (n) =>
          outbox
            .withTransaction(outbox.appendAll(Array.from({ length: 20 }, (_, i) => event(`e${n}-${i}`, `k${i % 10}`))))
            .pipe(
              Effect.zipRight(Effect.flatMap(Random.nextIntBetween(0, 6), (millis) => Effect.sleep(millis))),
              Effect.zipRight(terminate("true"))
            ),
        { discard: true }
      )
      yield* eventually(
        "all are published",
        Effect.map(unpublished, (count) => count === 0)
      )
      yield* assertRecorded
      const status = yield* Effect.flatMap(Pump.Pump, (pump) => pump.status)
      assert.isAbove(status.failures, 0)
    }).pipe(
      Effect.provide(
        Layer.mergeAll(
          Outbox.layer,
          layerPump({ pollPeriod: "5 millis", batchSize: 5, retry: PumpConfig.defaultRetry })
        ).pipe(Layer.provideMerge(database))
      )
    )
  )

  it.live("publish again with the same id when the connection is lost between publish and write-back", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      const sink = yield* MemorySink.MemorySink
      const context = yield* Effect.context<PgClient.PgClient>()
      yield* sink.script((batch, publish) =>
        Effect.tap(publish(batch), () =>
          terminate("state = 'idle in transaction'").pipe(Effect.orDie, Effect.provide(context))
        )
      )
      yield* outbox.withTransaction(outbox.appendAll([event("e1", "k"), event("e2", "k")]))
      yield* eventually(
        "both are recorded",
        Effect.map(unpublished, (count) => count === 0)
      )
      assert.deepStrictEqual(yield* feedIds, ["e1", "e2"])
      assert.isAtLeast((yield* sink.calls).length, 2)
      yield* assertRecorded
    }).pipe(
      Effect.provide(
        Layer.mergeAll(Outbox.layer, layerPump({ pollPeriod: "20 millis" })).pipe(Layer.provideMerge(database))
      )
    )
  )

  it.live("leave neither an xid nor a snapshot open while the sink is at work", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const outbox = yield* Outbox.Outbox
      const sink = yield* MemorySink.MemorySink
      const begun = yield* Effect.makeLatch(false)
      const release = yield* Effect.makeLatch(false)
      yield* sink.script(MemorySink.after(Effect.zipRight(begun.open, release.await)))
      yield* outbox.withTransaction(outbox.append(event("e1", "k")))
      yield* begun.await
      const rows = yield* sql`SELECT backend_xid, backend_xmin, state FROM pg_stat_activity
        WHERE application_name = 'controlpublish' AND datname = current_database() AND xact_start IS NOT NULL`
      assert.deepStrictEqual(rows, [{ backend_xid: null, backend_xmin: null, state: "idle in transaction" }])
      yield* release.open
      yield* eventually(
        "it is recorded",
        Effect.map(unpublished, (count) => count === 0)
      )
    }).pipe(
      Effect.provide(
        Layer.mergeAll(Outbox.layer, layerPump({ pollPeriod: "20 millis" })).pipe(Layer.provideMerge(database))
      )
    )
  )

  it.scopedLive("take the lane of a holder that went silent, and what it writes afterwards is refused", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      const pump = yield* Pump.Pump
      yield* outbox.withTransaction(outbox.append(event("e1", "k")))
      // A process that claims, and then stops for longer than it told the server it would.
      const frozen = Context.get(yield* Layer.build(Layer.fresh(Postgres.layer())), OutboxStore.OutboxStore)
      const options = { now: Date.now(), afterParked: "pass" } as const
      const [lane] = (yield* frozen.probe(options)).lanes
      const claim = yield* frozen.claim({ ...options, lanes: [lane!], limit: 10, maxBytes: 1000, holdFor: 1 })
      assert.strictEqual(claim._tag, "Claim")
      assert.deepInclude({ ...(yield* pump.drain) }, { published: 0 })
      yield* eventually(
        "another pump takes over",
        Effect.map(pump.drain, (report) => report.published === 1)
      )
      if (claim._tag !== "Claim") return
      const late = yield* Effect.flip(
        claim.settle({
          now: Date.now(),
          published: claim.rows.map((row) => ({ id: row.id, version: ControlVersion.make(999) })),
          failed: [],
          parked: []
        })
      )
      assert.strictEqual(late._tag, "OutboxError")
      const following = yield* Effect.flip(claim.following({ ...options, limit: 10, maxBytes: 1000 }))
      assert.strictEqual(following._tag, "OutboxError")
      // On a connection of its own, which does not know that the lane is lost: the row has its version.
      yield* claim.record({
        now: Date.now(),
        published: claim.rows.map((row) => ({ id: row.id, version: ControlVersion.make(999) }))
      })
      yield* assertRecorded
    }).pipe(
      Effect.provide(
        Layer.mergeAll(Outbox.layer, Pump.layerManual).pipe(
          Layer.provideMerge(MemorySink.layer),
          Layer.provideMerge(database),
          Layer.provide(PumpConfig.layerDefaults)
        )
      )
    )
  )

  it.scopedLive("stop within the drain timeout and seconds, also when the database has frozen", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const outbox = yield* Outbox.Outbox
      const { url } = yield* TestDatabase
      const proxy = yield* freezingProxy(new URL(Redacted.value(url)))
      const client: PgClient.PgClient = Object.assign(Object.create(sql) as PgClient.PgClient, {
        config: { ...sql.config, url: Redacted.make(proxy.url.href) }
      })
      const publishing = yield* Effect.makeLatch(false)
      const scope = yield* Scope.make()
      yield* Layer.buildWithScope(
        Pump.layer.pipe(
          Layer.provide(
            Layer.succeed(Sink.Sink, {
              name: "freezing",
              inert: false,
              publish: (batch) =>
                Effect.zipRight(
                  Effect.zipRight(proxy.freeze, publishing.open),
                  Effect.succeed(batch.events.map(() => Sink.published(ControlVersion.make(1))))
                )
            } satisfies Sink.Sink["Type"])
          ),
          Layer.provide(PumpConfig.layer({ drainTimeout: "1 second" })),
          Layer.provide(Postgres.layer()),
          Layer.provide(Layer.succeed(PgClient.PgClient, client))
        ),
        scope
      )
      yield* outbox.withTransaction(outbox.append(event("e1", "k")))
      yield* publishing.await
      const from = performance.now()
      yield* Scope.close(scope, Exit.void)
      assert.isBelow(performance.now() - from, 8_000)
      assert.strictEqual(yield* unpublished, 1)
    }).pipe(Effect.provide(Outbox.layer.pipe(Layer.provideMerge(database))))
  )
})
