import * as Reactivity from "@effect/experimental/Reactivity"
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Effect, Layer, Logger, LogLevel, Redacted } from "effect"
import { EventId, OrderingKey, Outbox, Pump, PumpConfig, type Sink } from "../src/index.js"
import { Postgres } from "../src/postgres/index.js"
import { JetStreamSink } from "../src/jetstream/index.js"
import { MemorySink } from "../src/testing/index.js"
import { postgresMeter } from "./support/meter.js"
import * as Nats from "./support/nats.js"
import { layerClient, layerOutbox, TestDatabase } from "./support/postgres.js"

// What cannot be noisy: how often the pump asks the database and the broker. Where one of these numbers has to grow,
// docs/performance.md has to say what for.

const database = Outbox.layer.pipe(Layer.provideMerge(layerOutbox("public")), Layer.provideMerge(layerClient))

/** A pump that reaches the database through a meter. */
const metered = (pump: typeof Pump.layer) =>
  Effect.gen(function* () {
    const sql = yield* PgClient.PgClient
    const { url } = yield* TestDatabase
    const meter = yield* postgresMeter(new URL(Redacted.value(url)))
    const client: PgClient.PgClient = Object.assign(Object.create(sql) as PgClient.PgClient, {
      config: { ...sql.config, url: Redacted.make(meter.url.href) }
    })
    const context = yield* Layer.build(
      pump.pipe(
        Layer.provide(MemorySink.layerWith({ keepFeed: false })),
        Layer.provide(PumpConfig.layerDefaults),
        Layer.provide(Postgres.layer()),
        Layer.provide(Layer.succeed(PgClient.PgClient, client))
      )
    )
    return { meter, pump: Context.get(context, Pump.Pump) }
  })

const appendAll = (count: number, keys: number) =>
  Effect.flatMap(Outbox.Outbox, (outbox) =>
    outbox.withTransaction(
      outbox.appendAll(
        Array.from({ length: count }, (_, n) => ({ event_id: `e${n}`, type: "x", tenant_id: `t${n % keys}` }))
      )
    )
  )

// Isolation, SET LOCAL and the look at once.
const probe = { statements: 3, roundTrips: 1 }
// BEGIN, SET LOCAL, the lanes' locks and the rows at once; then the write-back with COMMIT.
const batch = { statements: 6, roundTrips: 2 }

const times = (count: number, cost: typeof probe) => ({
  statements: count * cost.statements,
  roundTrips: count * cost.roundTrips
})

const sum = (one: typeof probe, other: typeof probe) => ({
  statements: one.statements + other.statements,
  roundTrips: one.roundTrips + other.roundTrips
})

const sleep = (millis: number) => Effect.promise(() => new Promise((resolve) => setTimeout(resolve, millis)))

describe("Costs", () => {
  it.live("of a batch: two round trips, and one to look for the next ones", () =>
    Effect.gen(function* () {
      const { meter, pump } = yield* metered(Pump.layerManual)
      yield* appendAll(2_000, 1)
      const { batches } = yield* pump.drain
      assert.strictEqual(batches, 4)
      // The only lane is held for all of them: it is locked once, and each batch reads the next one while it looks for
      // others. One look before, and one that finds nothing.
      const { roundTrips, statements } = sum(times(4, batch), times(6, probe))
      assert.deepStrictEqual(yield* meter.take, { roundTrips: roundTrips + 1, statements: statements - 2 })
    }).pipe(Effect.scoped, Effect.provide(database))
  )

  it.live("of an append: its INSERT alone, however many transactions a connection has had", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      const meter = yield* postgresMeter(new URL(Redacted.value((yield* TestDatabase).url)))
      const sql = yield* PgClient.make({ url: Redacted.make(meter.url.href), maxConnections: 1 }).pipe(
        Effect.provide(Reactivity.layer)
      )
      const append = sql.withTransaction(outbox.append({ type: "x" }))
      // The server is asked once which database the connection leads to.
      yield* append
      yield* meter.take
      for (let n = 0; n < 5; n++) yield* append
      assert.deepStrictEqual(yield* meter.take, { statements: 15, roundTrips: 15 })
    }).pipe(Effect.scoped, Effect.provide(database))
  )

  it.live("of many lanes: one look for all of them", () =>
    Effect.gen(function* () {
      const { meter, pump } = yield* metered(Pump.layerManual)
      yield* appendAll(12_000, 500)
      const { batches } = yield* pump.drain
      assert.strictEqual(batches, 64)
      assert.deepStrictEqual(yield* meter.take, sum(times(64, batch), times(2, probe)))
    }).pipe(Effect.scoped, Effect.provide(database))
  )

  it.live("of many lanes with few events each: that of a few batches", () =>
    Effect.gen(function* () {
      const { meter, pump } = yield* metered(Pump.layerManual)
      yield* appendAll(500, 500)
      const { batches } = yield* pump.drain
      // 15 lanes of less than 32 events make a batch of 500.
      assert.strictEqual(batches, 5)
      assert.deepStrictEqual(yield* meter.take, sum(times(5, batch), times(2, probe)))
    }).pipe(Effect.scoped, Effect.provide(database))
  )

  it.live("of idleness: one round trip a second, and the listener's keep-alive", () =>
    Effect.gen(function* () {
      const { meter } = yield* metered(Pump.layer)
      yield* sleep(2_000)
      yield* meter.take
      yield* sleep(20_000)
      const { roundTrips, statements } = yield* meter.take
      // 20 looks and 2 signs of life, and one of each where the time began between them.
      assert.isAtMost(roundTrips, 24)
      assert.isAtLeast(roundTrips, 15)
      assert.isAtMost(statements, 3 * roundTrips)
    }).pipe(Effect.scoped, Effect.provide(Layer.merge(database, Logger.minimumLogLevel(LogLevel.None))))
  )

  it.live.skipIf(!Nats.available())("of an event to JetStream: one publish and one acknowledgement", () =>
    Effect.gen(function* () {
      const monitor = yield* Effect.promise(Nats.freePort)
      const server = yield* Nats.nats({ config: () => `http: "127.0.0.1:${monitor}"` })
      const sink = yield* JetStreamSink.make({ servers: [server.url], stream: "s", manageStream: true })
      const messages = Effect.promise(async () => {
        const response = await fetch(`http://127.0.0.1:${monitor}/connz`)
        const { connections } = (await response.json()) as {
          connections: ReadonlyArray<{ name?: string; in_msgs: number; out_msgs: number }>
        }
        const connection = connections.find(({ name }) => name === "controlpublish")!
        return { publishes: connection.in_msgs, acknowledgements: connection.out_msgs }
      })
      const now = yield* Clock.currentTimeMillis
      const events = (from: number) =>
        Array.from({ length: 1_000 }, (_, n): Sink.OutboundEvent => {
          const eventId = EventId.make(`e${from + n}`)
          const event = { event_id: eventId, type: "x" }
          const orderingKey = OrderingKey.make(`k${n % 50}`)
          const payload = JSON.stringify(event)
          return { eventId, orderingKey, event, payload, traceparent: undefined, createdAt: now, attemptCount: 0 }
        }) as [Sink.OutboundEvent, ...Array<Sink.OutboundEvent>]
      const before = yield* messages
      yield* sink.publish({ events: events(0), deadline: now + 10_000 })
      yield* sink.publish({ events: events(1_000), deadline: now + 10_000 })
      const after = yield* messages
      assert.deepStrictEqual(
        [after.publishes - before.publishes, after.acknowledgements - before.acknowledgements],
        [2_000, 2_000]
      )
    }).pipe(Effect.scoped, Effect.provide(Logger.minimumLogLevel(LogLevel.None)))
  )
})
