import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger, Redacted } from "effect"
import { Outbox, OutboxAdmin, Pump, PumpConfig } from "../../src/index.js"
import { Postgres, PostgresOutboxAdmin } from "../../src/postgres/index.js"
import * as Names from "../../src/postgres/internal/names.js"
import { MemorySink } from "../../src/testing/index.js"
import * as Pgbouncer from "../support/pgbouncer.js"
import { eventually, feedIds } from "../support/pump.js"
import { layerClient, layerOutbox, rawClient, TestDatabase } from "../support/postgres.js"

const { armLock } = Names.make("public")

/** Who holds the lock of the wake-up as a session, seen from a connection that leads to the server itself. */
const armed = Effect.flatMap(PgClient.PgClient, (sql) =>
  sql.unsafe<{ pid: number }>(`SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = ${armLock >>> 0}
    AND mode = 'ExclusiveLock' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
)

const advisory = Effect.flatMap(PgClient.PgClient, (sql) =>
  sql.unsafe(`SELECT FROM pg_locks WHERE locktype = 'advisory'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
)

/** Client, outbox, admin and pump, all through `url`; the lines that are logged. */
const through = (url: URL, options: { readonly directUrl?: Redacted.Redacted; readonly pollPeriod: string }) => {
  const lines: Array<string> = []
  const logger = Logger.replace(
    Logger.defaultLogger,
    Logger.make(({ logLevel, message }) => void lines.push(`${logLevel.label} ${String(message)}`))
  )
  const store = Postgres.layer({ directUrl: options.directUrl })
  const layer = Layer.mergeAll(
    Outbox.layer,
    PostgresOutboxAdmin.layer(),
    Pump.layer.pipe(
      Layer.provideMerge(MemorySink.layer),
      Layer.provide(Layer.orDie(PumpConfig.layer({ pollPeriod: options.pollPeriod as "1 hour" })))
    )
  ).pipe(
    Layer.provide(store),
    Layer.provide(Layer.orDie(PgClient.layer({ url: Redacted.make(url.href), maxConnections: 5 }))),
    Layer.provide(logger)
  )
  return { layer, lines }
}

const append = (id: string) =>
  Effect.flatMap(Outbox.Outbox, (outbox) =>
    outbox.withTransaction(outbox.append({ event_id: id, type: "x", tenant_id: id }))
  )

const isPublished = (id: string) => Effect.map(feedIds, (ids) => ids.includes(id))

const migrated = layerOutbox("public").pipe(Layer.provideMerge(layerClient))

describe.skipIf(!Pgbouncer.available())("Behind a pooler", () => {
  for (const mode of ["transaction", "session"] as const) {
    it.scopedLive(`in ${mode} mode the pump polls, says so once, and leaves no lock behind`, () =>
      Effect.gen(function* () {
        const { url } = yield* TestDatabase
        const pooled = yield* Pgbouncer.pgbouncer(new URL(Redacted.value(url)), mode)
        const { layer, lines } = through(pooled, { pollPeriod: "100 millis" })
        yield* Effect.gen(function* () {
          for (let n = 0; n < 5; n++) {
            yield* append(`e${n}`)
            yield* eventually(`e${n} is published`, isPublished(`e${n}`))
            assert.deepStrictEqual(yield* armed, [])
          }
          const admin = yield* OutboxAdmin.OutboxAdmin
          yield* eventually(
            "the last write-back is committed",
            Effect.map(admin.overview({ limit: 10 }), ({ pending }) => pending.value === 0)
          )
          assert.strictEqual((yield* admin.events({}, { limit: 10 })).events.length, 5)
        }).pipe(Effect.provide(layer))
        const warnings = lines.filter((line) => line.includes("pooler"))
        assert.lengthOf(warnings, 1)
        assert.match(warnings[0]!, /^WARN .*DATABASE_DIRECT_URL/)
        // The pooler keeps its connections, and with them what a session would have left.
        yield* eventually(
          "no advisory lock is left",
          Effect.map(advisory, (rows) => rows.length === 0)
        )
      }).pipe(Effect.provide(migrated))
    )

    it.scopedLive(`in ${mode} mode a direct connection keeps the wake-up`, () =>
      Effect.gen(function* () {
        const { url } = yield* TestDatabase
        const pooled = yield* Pgbouncer.pgbouncer(new URL(Redacted.value(url)), mode)
        const { layer, lines } = through(pooled, { directUrl: url, pollPeriod: "1 hour" })
        yield* Effect.gen(function* () {
          for (let n = 0; n < 3; n++) {
            yield* eventually(
              "the pump is armed",
              Effect.map(armed, (rows) => rows.length === 1)
            )
            yield* append(`e${n}`)
            yield* eventually(`e${n} is published`, isPublished(`e${n}`))
          }
        }).pipe(Effect.provide(layer))
        assert.deepStrictEqual(
          lines.filter((line) => line.includes("pooler")),
          []
        )
        yield* eventually(
          "the lock is released",
          Effect.map(armed, (rows) => rows.length === 0)
        )
      }).pipe(Effect.provide(migrated))
    )
  }
})

describe("A lock of the wake-up that no listener holds", () => {
  it.scopedLive("ends, and the pump arms itself", () =>
    Effect.gen(function* () {
      const { url } = yield* TestDatabase
      const stranger = yield* rawClient
      const [{ pid }] = (yield* Effect.promise(() =>
        stranger.query<{ pid: number }>(`SELECT pg_backend_pid() AS pid, pg_advisory_lock(${armLock}, 0)`)
      )).rows as [{ pid: number }]
      const { layer, lines } = through(new URL(Redacted.value(url)), { pollPeriod: "1 hour" })
      yield* Effect.gen(function* () {
        yield* eventually(
          "the pump is armed",
          Effect.map(armed, (rows) => rows.length === 1 && rows[0]!.pid !== pid)
        )
        yield* append("e1")
        yield* eventually("e1 is published", isPublished("e1"))
      }).pipe(Effect.provide(layer))
      assert.lengthOf(
        lines.filter((line) => line.startsWith(`WARN Ended session ${pid} `)),
        1
      )
    }).pipe(Effect.provide(migrated))
  )

  it.scopedLive("of a session that is at work stays, is named once, and delays no event", () =>
    Effect.gen(function* () {
      const { url } = yield* TestDatabase
      const stranger = yield* rawClient
      const [{ pid }] = (yield* Effect.promise(async () => {
        await stranger.query("BEGIN")
        return stranger.query<{ pid: number }>(`SELECT pg_backend_pid() AS pid, pg_advisory_lock(${armLock}, 0)`)
      })).rows as [{ pid: number }]
      const { layer, lines } = through(new URL(Redacted.value(url)), { pollPeriod: "1 hour" })
      const warned = () => lines.filter((line) => line.startsWith(`WARN Session ${pid} `)).length
      yield* Effect.gen(function* () {
        yield* eventually(
          "it is named",
          Effect.sync(() => warned() > 0)
        )
        for (let n = 0; n < 3; n++) {
          yield* append(`e${n}`)
          yield* eventually(`e${n} is published`, isPublished(`e${n}`))
        }
      }).pipe(Effect.provide(layer))
      assert.strictEqual(warned(), 1)
      assert.deepStrictEqual(
        (yield* armed).map((row) => row.pid),
        [pid]
      )
    }).pipe(Effect.provide(migrated))
  )
})
