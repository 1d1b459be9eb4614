import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as StatusBoard from "../../src/admin/StatusBoard.js"
import { Outbox, OutboxAdmin, OutboxStore, Retention } from "../../src/index.js"
import { PostgresOutboxAdmin } from "../../src/postgres/index.js"
import * as Names from "../../src/postgres/internal/names.js"
import { appendAndHold, eventually, feedIds, layerPump } from "../support/pump.js"
import { layerClient, layerOutbox } from "../support/postgres.js"
import { asOwner, connectTo, failureOf, makeRole } from "../support/roles.js"

const { laneLock, orderLock } = Names.make("public")

const layer = Layer.mergeAll(Outbox.layer, layerPump({ pollPeriod: "100 millis" }), PostgresOutboxAdmin.layer()).pipe(
  Layer.provideMerge(layerOutbox("public")),
  Layer.provideMerge(layerClient)
)

const append = (id: string) =>
  Effect.flatMap(Outbox.Outbox, (outbox) =>
    outbox.withTransaction(outbox.append({ event_id: id, type: "x", tenant_id: id }))
  )

const found = Effect.map(
  Effect.flatMap(OutboxAdmin.OutboxAdmin, (admin) => admin.overview({ limit: 10 })),
  ({ strangers = [] }) => strangers
)

/** A connection of a role that may do nothing but connect. */
const stranger = Effect.gen(function* () {
  const role = yield* makeRole("stranger")
  return { ...role, client: yield* connectTo(role.url, { application_name: "cron" }) }
})

describe("A stranger that holds locks of the outbox", () => {
  it.scopedLive("makes the service unready, and is named by readiness and overview until it is gone", () =>
    Effect.gen(function* () {
      const board = yield* StatusBoard.make.pipe(Effect.provide(Retention.layerManual({ keep: "all" })))
      const { client, name } = yield* stranger
      yield* append("before")
      yield* eventually(
        "what came before is published",
        Effect.map(feedIds, (ids) => ids.includes("before"))
      )
      yield* failureOf(client, `SELECT pg_advisory_lock(${laneLock}, lane) FROM generate_series(0, 63) lane`)
      yield* append("held")
      const health = yield* Effect.repeat(Effect.delay(board.health, "100 millis"), {
        until: ({ pump }) => !pump.ok
      }).pipe(Effect.timeout("60 seconds"))
      assert.isFalse(health.ready)
      assert.match(
        health.pump.message,
        new RegExp(
          `session \\d+ \\(user "${name}", application "cron", since .*Z\\) is no pump and holds lanes 0-63: end it with SELECT pg_terminate_backend\\(\\d+\\)$`
        )
      )
      assert.isAbove(health.pump.since!, Date.now() - 600_000)
      const [one, ...others] = yield* found
      assert.deepStrictEqual(others, [])
      assert.deepInclude(one, {
        user: name,
        application: "cron",
        keys: 0,
        lanes: Array.from({ length: 64 }, (_, n) => n)
      })
      assert.notInclude(yield* feedIds, "held")
      yield* asOwner(`SELECT pg_terminate_backend(${one!.pid})`)
      yield* eventually(
        "the event is published",
        Effect.map(feedIds, (ids) => ids.includes("held"))
      )
      yield* eventually(
        "the service is ready",
        Effect.map(board.health, ({ ready }) => ready)
      )
      assert.deepStrictEqual(yield* found, [])
    }).pipe(Effect.provide(layer))
  )

  it.scopedLive("is found behind the name of a pump, and with the locks of ordering keys", () =>
    Effect.gen(function* () {
      const { client } = yield* stranger
      yield* failureOf(
        client,
        `SET application_name = 'controlpublish'; SELECT pg_advisory_lock(${laneLock}, 7), pg_advisory_lock(${orderLock}, 0), pg_advisory_lock(${orderLock}, 4095)`
      )
      yield* eventually(
        "it is found",
        Effect.map(found, ([one]) => one?.lanes.join() === "7" && one.keys === 2)
      )
    }).pipe(Effect.provide(layer))
  )

  it.scopedLive("is none of those that publish, park and append", () =>
    Effect.gen(function* () {
      const sink = yield* Effect.makeLatch(false)
      const store = yield* OutboxStore.OutboxStore
      const held = yield* appendAndHold({ event_id: "open", type: "x", tenant_id: "open" })
      yield* asOwner(`INSERT INTO control_events_outbox (event_id, event_type, tenant_id, payload_json, parked_at)
        SELECT 'e' || n, 'x', 't' || n, '{}', now() FROM generate_series(1, 100) n`)
      const admin = yield* OutboxAdmin.OutboxAdmin
      const claiming = yield* Effect.fork(
        Effect.scoped(
          Effect.zipRight(
            store.claim({ lanes: [1, 2, 3], now: 0, limit: 1, maxBytes: 1, holdFor: 60_000, afterParked: "pass" }),
            sink.await
          )
        )
      )
      yield* Effect.all(
        Array.from({ length: 20 }, () => Effect.map(found, (strangers) => assert.deepStrictEqual(strangers, [])))
      )
      yield* Effect.all([admin.redrive({}, { actor: "ann", reason: "test" }), found], { concurrency: "unbounded" })
      assert.deepStrictEqual(yield* found, [])
      yield* sink.open
      yield* claiming.await
      yield* held.commit
    }).pipe(Effect.provide(layer))
  )
})
