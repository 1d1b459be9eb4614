import { assert, describe, it } from "@effect/vitest"
import { Chunk, Context, Effect, Fiber, Layer, Stream, TestClock } from "effect"
import { OutboxAdmin, OutboxStore, Pump, PumpConfig, Retention, Sink } from "../../src/index.js"
import * as StatusBoard from "../../src/admin/StatusBoard.js"
import { MemoryOutboxAdmin, MemoryOutboxStore, MemorySink } from "../../src/testing/index.js"

const lost = new OutboxStore.OutboxError({ message: "connection lost", retryable: true })

/** A board over a database that counts how often it is asked, and answers what it is told to. */
const make = (sink: Layer.Layer<Sink.Sink> = MemorySink.layer) =>
  Effect.gen(function* () {
    const context = yield* Layer.build(
      Layer.mergeAll(
        Pump.layerManual.pipe(Layer.provide(PumpConfig.layerDefaults)),
        Retention.layer({ keep: "all" }).pipe(Layer.provideMerge(MemoryOutboxAdmin.layer))
      ).pipe(Layer.provideMerge(sink), Layer.provide(MemoryOutboxStore.layer))
    )
    const asked = { times: 0, drawn: 0, answer: Effect.void as Effect.Effect<void, OutboxStore.OutboxError> }
    const admin = yield* Effect.provide(OutboxAdmin.OutboxAdmin, context)
    const overview: (typeof admin)["overview"] = (options) =>
      Effect.suspend(() => {
        asked.times++
        const { drawn } = asked
        return Effect.zipRight(
          asked.answer,
          Effect.map(admin.overview(options), (overview) => ({ ...overview, drawn }))
        )
      })
    const board = yield* StatusBoard.make.pipe(
      Effect.provideService(OutboxAdmin.OutboxAdmin, { ...admin, overview }),
      Effect.provide(context)
    )
    return { asked, board }
  })

describe("StatusBoard", () => {
  it.scoped("asks the database once a second for all who look, and every five seconds while nobody looks", () =>
    Effect.gen(function* () {
      const { asked, board } = yield* make()
      yield* TestClock.adjust("1 minute")
      assert.isAtLeast(asked.times, 12)
      assert.isAtMost(asked.times, 13)
      yield* TestClock.adjust("2 seconds")
      asked.times = 0
      yield* Effect.all(
        Array.from({ length: 50 }, () => board.status),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(asked.times, 1)
      const readers = yield* Effect.forEach(Array.from({ length: 10 }), () =>
        Effect.fork(Stream.runCollect(Stream.take(board.changes, 5)))
      )
      yield* Effect.forEach(Array.from({ length: 100 }), () =>
        Effect.zipRight(board.status, TestClock.adjust("50 millis"))
      )
      assert.isAtMost(asked.times, 7)
      const [first, ...others] = yield* Effect.forEach(readers, Fiber.join)
      for (const other of others) assert.deepStrictEqual(Chunk.toArray(other), Chunk.toArray(first!))
      yield* TestClock.adjust("3 seconds")
      const { times } = asked
      yield* TestClock.adjust("1 minute")
      assert.isAtMost(asked.times, times + 13)
    })
  )

  it.scoped("has what the sink says of the limits of its feed, and stays ready", () =>
    Effect.gen(function* () {
      const bounds = [{ message: "nodes more than 30s behind cannot catch up", reach: { millis: 30_000 } }]
      const { board } = yield* make(
        Layer.map(MemorySink.layer, (context) =>
          Context.add(context, Sink.Sink, { ...Context.get(context, Sink.Sink), bounds: Effect.succeed(bounds) })
        )
      )
      const health = yield* board.health
      assert.deepStrictEqual([health.ready, health.bounds], [true, bounds])
    })
  )

  it.scoped("remembers the last ten minutes, from before anybody looked", () =>
    Effect.gen(function* () {
      const { asked, board } = yield* make()
      for (let minute = 0; minute < 30; minute++) {
        if (minute === 25) asked.answer = lost
        if (minute === 26) asked.answer = Effect.void
        asked.drawn += 60
        yield* TestClock.adjust("1 minute")
      }
      const { samples } = yield* board.history
      const now = (yield* board.status).at
      assert.isAtLeast(samples.length, 119)
      assert.isAtMost(samples.length, 122)
      assert.isAtLeast(samples[0]!.at, now - 600_000)
      assert.isTrue(samples.every(({ at }, index) => index === 0 || at > samples[index - 1]!.at))
      const unread = samples.filter(({ pending }) => pending === undefined)
      assert.isAtLeast(unread.length, 11)
      assert.isAtMost(unread.length, 13)
    })
  )

  it.scoped("keeps what it knew while the database is gone, and says so", () =>
    Effect.gen(function* () {
      const { asked, board } = yield* make()
      const known = yield* board.status
      assert.isTrue(known.health.ready)
      assert.strictEqual(known.outboxAt, known.at)
      asked.answer = lost
      yield* TestClock.adjust("5 seconds")
      const gone = yield* board.status
      const { since, ...database } = gone.health.database
      assert.deepStrictEqual(database, { ok: false, message: "connection lost" })
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* board.status).health.database.since, since, "the outage began once")
      assert.isFalse(gone.health.ready)
      assert.deepStrictEqual([gone.outbox, gone.outboxAt], [known.outbox, known.outboxAt])
      assert.isAbove(gone.at, gone.outboxAt!)
      asked.answer = Effect.void
      yield* TestClock.adjust("5 seconds")
      const healthy = yield* board.health
      assert.isTrue(healthy.ready)
      assert.strictEqual(healthy.database.since, undefined)
    })
  )

  it.scoped("waits two seconds for a database that hangs, and asks again", () =>
    Effect.gen(function* () {
      const { asked, board } = yield* make()
      asked.answer = Effect.never
      const status = yield* Effect.fork(board.status)
      yield* TestClock.adjust("1999 millis")
      assert.isTrue((yield* status.poll)._tag === "None")
      yield* TestClock.adjust("1 millis")
      const { health, outbox } = yield* Fiber.join(status)
      assert.include(health.database, { ok: false, message: "The database did not answer within 2s" })
      assert.strictEqual(outbox, undefined)
      asked.answer = Effect.void
      yield* TestClock.adjust("5 seconds")
      assert.isTrue((yield* board.health).database.ok)
    })
  )

  it.scoped("tells rates over the last seconds", () =>
    Effect.gen(function* () {
      const { asked, board } = yield* make()
      assert.deepStrictEqual((yield* board.status).rates, { appended: undefined, published: undefined })
      for (let second = 0; second < 30; second++) {
        asked.drawn += 7
        yield* TestClock.adjust("1 second")
        yield* board.status
      }
      assert.deepStrictEqual((yield* board.status).rates, { appended: 7, published: 0 })
    })
  )

  it.scoped("asks the sink, where that can tell without a publish", () =>
    Effect.gen(function* () {
      let fails = true
      const gone = new Sink.SinkUnavailable({ sink: "probed", reason: "unreachable", message: "connection refused" })
      const { board } = yield* make(
        Layer.succeed(Sink.Sink, {
          name: "probed",
          inert: false,
          publish: () => Effect.succeed([]),
          check: Effect.suspend(() => (fails ? gone : Effect.void))
        })
      )
      const health = yield* board.health
      assert.deepStrictEqual([health.ready, health.sink.message], [false, "probed: connection refused"])
      assert.isTrue(health.database.ok)
      fails = false
      yield* TestClock.adjust("5 seconds")
      assert.isTrue((yield* board.health).ready)
    })
  )

  it.scoped("asks nobody anything where the sink is nop, and is ready", () =>
    Effect.gen(function* () {
      const { asked, board } = yield* make(Sink.layerNop)
      const { health, pump } = yield* board.status
      assert.strictEqual(pump.state, "inert")
      assert.isTrue(health.ready)
      assert.strictEqual(asked.times, 0)
    })
  )
})
