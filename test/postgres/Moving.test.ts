import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import type * as Pg from "pg"
import { Outbox, Pump, PumpConfig } from "../../src/index.js"
import { Migrations, Postgres } from "../../src/postgres/index.js"
import { MemorySink } from "../../src/testing/index.js"
import { makeOwnServer } from "../support/ownServer.js"
import { layerClient, rawClient } from "../support/postgres.js"
import { eventually, feedIds } from "../support/pump.js"
import { connectTo, failureOf } from "../support/roles.js"

const run = (client: Pg.Client, ...statements: ReadonlyArray<string>) =>
  Effect.promise(async () => {
    let rows: Array<Record<string, unknown>> = []
    for (const statement of statements) rows = (await client.query<Record<string, unknown>>(statement)).rows
    return rows
  })

const insert = (letter: string, rows: number) =>
  `INSERT INTO control_events_outbox (event_id, event_type, tenant_id, payload_json)
    SELECT '${letter}' || g, 'x', 't', json_build_object('event_id', '${letter}' || g, 'type', 'x', 'tenant_id', 't',
      'created_at', '2026-01-01T00:00:00Z') FROM generate_series(1, ${rows}) g`

/** Rows whose physical order is not that of their ids: what a dump has first was appended last. */
const fill = (client: Pg.Client) =>
  run(
    client,
    insert("a", 400),
    "DELETE FROM control_events_outbox WHERE id <= 200",
    "VACUUM control_events_outbox",
    insert("b", 100),
    `UPDATE control_events_outbox SET published_at = now(), published_control_version = id WHERE event_id = 'a201'`,
    `UPDATE control_events_outbox SET parked_at = now(), last_error = 'no' WHERE event_id = 'a202'`,
    `UPDATE control_events_outbox SET next_attempt_at = now() - interval '1 s', attempt_count = 3 WHERE event_id = 'b1'`
  )

const content = (client: Pg.Client) => run(client, "SELECT * FROM control_events_outbox ORDER BY id")

/** What a dump has: every column that is not generated. */
const columns = (client: Pg.Client) =>
  Effect.map(
    run(
      client,
      `SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) AS columns FROM pg_attribute
        WHERE attrelid = 'control_events_outbox'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''`
    ),
    ([row]) => String(row!["columns"])
  )

/** The lines of `pg_dump --data-only --table=control_events_outbox`, as COPY reads them, in a file of the server's. */
const dumped = Effect.gen(function* () {
  yield* Migrations.run()
  const client = yield* rawClient
  yield* fill(client)
  const [place] = yield* run(
    client,
    "SELECT current_setting('data_directory') || '/moved-' || gen_random_uuid() AS file"
  )
  const file = String(place!["file"])
  const names = yield* columns(client)
  const physical = yield* run(client, "SELECT event_id FROM control_events_outbox")
  assert.match(String(physical[0]!["event_id"]), /^b/, "the dump is in no other order than the ids, and shows nothing")
  yield* run(client, `COPY control_events_outbox (${names}) TO '${file}'`)
  return { copy: `COPY control_events_outbox (${names}) FROM '${file}'`, rows: yield* content(client) }
}).pipe(Effect.scoped, Effect.provide(layerClient))

const setval = "SELECT setval('control_events_outbox_id_seq', 500)"

/** Publishes everything after one more append, and answers the ids in the order of the feed. */
const publishedAfter = Effect.gen(function* () {
  const outbox = yield* Outbox.Outbox
  yield* outbox.withTransaction(outbox.append({ event_id: "last", type: "x", tenant_id: "t" }))
  const pump = yield* Pump.Pump
  yield* pump.drain
  return yield* feedIds
}).pipe(
  Effect.provide(
    Layer.mergeAll(Outbox.layer, Pump.layerManual).pipe(
      Layer.provideMerge(MemorySink.layer),
      Layer.provide(PumpConfig.layerDefaults),
      Layer.provide(Postgres.layer())
    )
  )
)

const inOrder = [
  ...Array.from({ length: 198 }, (_, n) => `a${n + 203}`),
  ...Array.from({ length: 100 }, (_, n) => `b${n + 1}`),
  "last"
]

describe("A data-only dump of the outbox", () => {
  it.scopedLive(
    "is refused as a whole where the triggers draw ids",
    () =>
      Effect.gen(function* () {
        const { copy } = yield* dumped
        yield* Effect.gen(function* () {
          yield* Migrations.run()
          const client = yield* rawClient
          assert.match((yield* failureOf(client, copy)) ?? "", /^428C9 the row brings the id/)
          assert.deepStrictEqual(yield* content(client), [])
        }).pipe(Effect.provide(layerClient))
      }),
    120_000
  )

  const ways: Record<string, ReadonlyArray<string>> = {
    "with controlpublish.restore": ["SET controlpublish.restore = on", "COPY", setval],
    "with controlpublish.restore, and no setval": ["SET controlpublish.restore = on", "COPY"],
    "with --disable-triggers": [
      "ALTER TABLE control_events_outbox DISABLE TRIGGER ALL",
      "COPY",
      "ALTER TABLE control_events_outbox ENABLE TRIGGER ALL",
      setval
    ],
    "with session_replication_role": ["SET session_replication_role = replica", "COPY", setval]
  }
  for (const [way, statements] of Object.entries(ways)) {
    it.scopedLive(
      `keeps every row, its state and the order ${way}`,
      () =>
        Effect.gen(function* () {
          const { copy, rows } = yield* dumped
          yield* Effect.gen(function* () {
            yield* Migrations.run()
            const client = yield* rawClient
            yield* run(client, ...statements.map((statement) => (statement === "COPY" ? copy : statement)))
            assert.deepStrictEqual(yield* content(client), rows)
            yield* Migrations.check()
            assert.deepStrictEqual(yield* publishedAfter, inOrder)
          }).pipe(Effect.provide(layerClient))
        }),
      120_000
    )
  }

  it.scopedLive(
    "whose sequence was forgotten stops the start, which says what to run",
    () =>
      Effect.gen(function* () {
        const { copy } = yield* dumped
        yield* Effect.gen(function* () {
          yield* Migrations.run()
          const client = yield* rawClient
          yield* run(client, "SET session_replication_role = replica", copy)
          const error = yield* Effect.flip(Migrations.check())
          assert.strictEqual(error._tag, "SequenceBehind")
          assert.strictEqual((yield* Effect.flip(Migrations.run())).message, error.message)
          const [, statement] = /run (SELECT .*)$/.exec(error.message) ?? []
          yield* run(client, statement!)
          yield* Migrations.check()
          yield* Migrations.run()
          assert.deepStrictEqual(yield* publishedAfter, inOrder)
        }).pipe(Effect.provide(layerClient))
      }),
    120_000
  )
})

describe("A logical replication of the outbox", () => {
  it.scopedLive(
    "keeps every row and its state, and leaves a sequence behind that the start finds",
    () =>
      Effect.gen(function* () {
        const server = yield* makeOwnServer({ wal_level: "logical" })
        const source = yield* server.url
        yield* server.query("CREATE DATABASE target")
        const target = new URL(source)
        target.pathname = "/target"
        const layer = (url: string) => PgClient.layer({ url: Redacted.make(url) })
        yield* Effect.provide(Migrations.run(), layer(source))
        const from = yield* connectTo(source)
        yield* fill(from)
        yield* run(
          from,
          "CREATE PUBLICATION outbox FOR TABLE control_events_outbox",
          "SELECT pg_create_logical_replication_slot('outbox', 'pgoutput')"
        )
        yield* Effect.gen(function* () {
          yield* Migrations.run()
          const to = yield* connectTo(target.href)
          yield* run(
            to,
            `CREATE SUBSCRIPTION outbox CONNECTION '${source}' PUBLICATION outbox WITH (create_slot = false, slot_name = 'outbox')`
          )
          // While it goes on, too.
          yield* run(from, `UPDATE control_events_outbox SET attempt_count = 4 WHERE event_id = 'b1'`)
          const rows = yield* content(from)
          yield* eventually(
            "the target has every row",
            Effect.map(content(to), (copied) => JSON.stringify(copied) === JSON.stringify(rows))
          )
          yield* run(
            to,
            "ALTER SUBSCRIPTION outbox DISABLE",
            "ALTER SUBSCRIPTION outbox SET (slot_name = NONE)",
            "DROP SUBSCRIPTION outbox"
          )
          const error = yield* Effect.flip(Migrations.check())
          assert.deepInclude({ ...error }, { _tag: "SequenceBehind", drawn: "0", highest: "500" })
          yield* run(to, setval)
          yield* Migrations.check()
          assert.deepStrictEqual(yield* publishedAfter, inOrder)
        }).pipe(Effect.provide(layer(target.href)))
        yield* run(from, "SELECT pg_drop_replication_slot('outbox') FROM pg_replication_slots WHERE NOT active")
      }),
    300_000
  )
})
