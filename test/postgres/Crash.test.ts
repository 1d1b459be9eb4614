import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger, LogLevel, Redacted } from "effect"
import { Outbox, Pump, PumpConfig } from "../../src/index.js"
import { layerClient, layerOutbox, TestDatabase } from "../support/postgres.js"
import { bundle, kill, run } from "../support/processes.js"
import { eventually } from "../support/pump.js"
import * as TableSink from "../support/tableSink.js"

const count = (from: string) =>
  Effect.flatMap(PgClient.PgClient, (sql) =>
    Effect.map(sql.unsafe<{ count: number }>(`SELECT count(*)::int AS count FROM ${from}`), ([row]) => row!.count)
  )

describe("Pumps that crash", () => {
  it.scopedLive(
    "lose nothing, invent nothing and reorder nothing when they are killed with -9 while they publish",
    () =>
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        const outbox = yield* Outbox.Outbox
        const { url } = yield* TestDatabase
        const program = yield* bundle("pumpProcess")
        yield* TableSink.createFeed
        // One pump in this process, and others that come and are killed.
        yield* Layer.build(
          Pump.layer.pipe(
            Layer.provide(TableSink.layer("here")),
            Layer.provide(PumpConfig.layer({ batchSize: 5, concurrency: 1, pollPeriod: "100 millis" })),
            Layer.provide(Logger.minimumLogLevel(LogLevel.None))
          )
        )
        let appended = 0
        const append = Effect.suspend(() =>
          outbox.withTransaction(
            outbox.appendAll(
              Array.from({ length: 50 }, () => ({
                event_id: `e${++appended}`,
                type: "x",
                tenant_id: `k${appended % 100}`
              }))
            )
          )
        )
        const killedWhilePublishing: Array<number> = []
        for (let round = 0; round < 3; round++) {
          const name = `child-${round}`
          const child = yield* run(program, [Redacted.value(url), name])
          yield* Effect.replicateEffect(append, 12, { discard: true })
          yield* eventually(
            `${name} publishes`,
            Effect.map(count(`feed WHERE publisher = '${name}'`), (n) => n > 20)
          )
          yield* kill(child, "SIGKILL")
          killedWhilePublishing.push(yield* count("control_events_outbox WHERE published_at IS NULL"))
        }
        // Otherwise this shows nothing.
        assert.isAbove(Math.max(...killedWhilePublishing), 0)
        yield* eventually(
          "all are published",
          Effect.map(count("control_events_outbox WHERE published_at IS NULL"), (n) => n === 0)
        )
        const rows = yield* sql<{ event_id: string; recorded: boolean }>`
          SELECT event_id, published_control_version = feed.version AS recorded
          FROM control_events_outbox FULL JOIN feed USING (event_id)`
        assert.strictEqual(rows.length, appended)
        assert.deepStrictEqual(
          rows.filter((row) => !row.recorded),
          []
        )
        const reordered = yield* sql`SELECT a.event_id, b.event_id FROM control_events_outbox a
          JOIN control_events_outbox b USING (ordering_key)
          WHERE a.id < b.id AND a.published_control_version >= b.published_control_version`
        assert.deepStrictEqual(reordered, [])
      }).pipe(
        Effect.provide(Outbox.layer.pipe(Layer.provideMerge(layerOutbox("public")), Layer.provideMerge(layerClient)))
      ),
    300_000
  )

  it.scopedLive("and pumps that are stopped exit with 0, every event in the feed recorded", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const outbox = yield* Outbox.Outbox
      const { url } = yield* TestDatabase
      const program = yield* bundle("pumpProcess")
      yield* TableSink.createFeed
      const child = yield* run(program, [Redacted.value(url), "child"])
      yield* outbox.withTransaction(
        outbox.appendAll(Array.from({ length: 3000 }, (_, n) => ({ type: "x", tenant_id: `k${n % 50}` })))
      )
      yield* eventually(
        "it publishes",
        Effect.map(count("feed"), (n) => n > 50)
      )
      assert.strictEqual(yield* kill(child, "SIGTERM"), 0)
      const [state] = yield* sql<{ feed: number; unrecorded: number; half: number }>`
        SELECT (SELECT count(*)::int FROM feed) AS feed,
          (SELECT count(*)::int FROM feed LEFT JOIN control_events_outbox o
            ON o.event_id = feed.event_id AND published_control_version = feed.version WHERE o.id IS NULL) AS unrecorded,
          (SELECT count(*)::int FROM control_events_outbox
            WHERE (published_at IS NULL) <> (published_control_version IS NULL)) AS half`
      assert.deepInclude(state, { unrecorded: 0, half: 0 })
      assert.isBelow(state!.feed, 3000)
    }).pipe(
      Effect.provide(Outbox.layer.pipe(Layer.provideMerge(layerOutbox("public")), Layer.provideMerge(layerClient)))
    )
  )
})
