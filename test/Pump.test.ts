import { assert, describe, it } from "@effect/vitest"
import {
  Chunk,
  Context,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  LogLevel,
  Scope,
  Schedule,
  Stream,
  TestClock
} from "effect"
import { ControlVersion, Outbox, OutboxStore, Pump, PumpConfig, Sink, WakeUp, type PumpStatus } from "../src/index.js"
import { MemoryOutboxStore, MemorySink } from "../src/testing/index.js"
import { feedIds } from "./support/pump.js"

type Config = Parameters<typeof PumpConfig.layer>[0]

const base = Outbox.layer.pipe(Layer.provideMerge(MemorySink.layer), Layer.provideMerge(MemoryOutboxStore.layer))

const config = (options: Config = {}) =>
  Layer.orDie(
    PumpConfig.layer({
      retry: Schedule.union(Schedule.exponential("100 millis"), Schedule.spaced("10 seconds")),
      eventRetry: Schedule.spaced("1 second"),
      ...options
    })
  )

/** A pump that runs by itself. */
const scheduled = (options: Config = {}) => Layer.provideMerge(Pump.layer.pipe(Layer.provide(config(options))), base)

/** A pump in a scope that the test closes, for tests of stopping. */
const startPump = (options: Config = {}) =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const pump = yield* Pump.make.pipe(Effect.provide(config(options)), Scope.extend(scope))
    return { pump, stop: Scope.close(scope, Exit.void) }
  })

const append = (...ids: ReadonlyArray<string>) =>
  Effect.flatMap(Outbox.Outbox, (outbox) =>
    outbox.withTransaction(outbox.appendAll(ids.map((id) => ({ event_id: id, type: "x", tenant_id: id.slice(0, 1) }))))
  )

/** Makes the next publish wait until the effect that this answers has run. */
const hangNextPublish = Effect.gen(function* () {
  const sink = yield* MemorySink.MemorySink
  const latch = yield* Effect.makeLatch(false)
  yield* sink.script(MemorySink.after(latch.await))
  return { release: latch.open }
})

/** Lets every fiber run that can, without time passing. */
const settle = TestClock.adjust(0)

const stateIs = (pump: Pump.Pump["Type"], state: PumpStatus.PumpState) =>
  Effect.map(pump.status, (status) => assert.strictEqual(status.state, state))

const rowOf = (id: string) =>
  Effect.flatMap(MemoryOutboxStore.MemoryOutboxStore, ({ rows }) =>
    Effect.map(rows, (all) => all.find((row) => row.eventId === id)!)
  )

describe("Pump", () => {
  it.effect("publishes by itself, woken by the commit", () =>
    Effect.gen(function* () {
      const pump = yield* Pump.Pump
      yield* settle
      yield* stateIs(pump, "idle")
      yield* append("a1", "b1")
      yield* settle
      assert.deepStrictEqual(new Set(yield* feedIds), new Set(["a1", "b1"]))
      yield* stateIs(pump, "idle")
      const row = yield* rowOf("a1")
      assert.deepInclude({ ...row }, { attemptCount: 1, publishedAt: 0 })
      assert.isAbove(row.version!, 0)
    }).pipe(Effect.provide(scheduled()))
  )

  it.effect("publishes at start what was pending", () =>
    Effect.gen(function* () {
      yield* append("a1", "a2", "a3")
      const { stop } = yield* startPump()
      yield* settle
      assert.deepStrictEqual(yield* feedIds, ["a1", "a2", "a3"])
      yield* stop
    }).pipe(Effect.provide(base))
  )

  it.effect("finds events without a wake-up by polling", () =>
    Effect.gen(function* () {
      const store = yield* OutboxStore.OutboxStore
      const sink = yield* MemorySink.MemorySink
      yield* sink.failEvent("a1", { times: 1 })
      yield* append("a1")
      yield* settle
      assert.deepStrictEqual((yield* store.backlog({ limit: 9 })).waiting.value, 1)
      yield* TestClock.adjust("999 millis")
      assert.deepStrictEqual(yield* feedIds, [])
      // Long before the next poll: the pump knows when the event is due.
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(yield* feedIds, ["a1"])
    }).pipe(Effect.provide(scheduled({ pollPeriod: "1 hour" })))
  )

  it.effect("backs off as a whole while the sink is unavailable, charges no event, and resumes by itself", () =>
    Effect.gen(function* () {
      const pump = yield* Pump.Pump
      const sink = yield* MemorySink.MemorySink
      yield* sink.setAvailable(false)
      yield* append("a1", "b1", "a2")
      yield* settle
      yield* stateIs(pump, "unavailable")
      const calls = yield* sink.calls
      yield* TestClock.adjust("100 millis")
      assert.strictEqual((yield* sink.calls).length, calls.length + 1)
      yield* TestClock.adjust("199 millis")
      assert.strictEqual((yield* sink.calls).length, calls.length + 1)
      yield* TestClock.adjust("1 minute")
      const status = yield* pump.status
      assert.isAbove(status.failures, 5)
      assert.isNotEmpty(status.lastError?.message)
      for (const id of ["a1", "b1", "a2"]) {
        assert.deepInclude({ ...(yield* rowOf(id)) }, { attemptCount: 0, lastError: undefined, parkedAt: undefined })
      }
      yield* sink.setAvailable(true)
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(
        (yield* feedIds).filter((id) => id.startsWith("a")),
        ["a1", "a2"]
      )
      yield* stateIs(pump, "idle")
    }).pipe(Effect.provide(scheduled({ concurrency: 1 })))
  )

  it.effect("continues after its retry schedule has ended", () =>
    Effect.gen(function* () {
      const sink = yield* MemorySink.MemorySink
      yield* sink.setAvailable(false)
      yield* append("a1")
      yield* TestClock.adjust("1 minute")
      yield* sink.setAvailable(true)
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(yield* feedIds, ["a1"])
    }).pipe(Effect.provide(scheduled({ retry: Schedule.recurs(2) })))
  )

  it.effect("keeps what a sink published before it became unavailable", () =>
    Effect.gen(function* () {
      const sink = yield* MemorySink.MemorySink
      yield* sink.script(MemorySink.stopAfter(2), MemorySink.unavailable)
      yield* append("a1", "a2", "a3", "a4")
      yield* settle
      assert.isNumber((yield* rowOf("a2")).version)
      assert.isUndefined((yield* rowOf("a3")).version)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* feedIds, ["a1", "a2", "a3", "a4"])
      assert.strictEqual((yield* rowOf("a3")).attemptCount, 1)
    }).pipe(Effect.provide(scheduled()))
  )

  it.effect("publishes again with the same id when the acknowledgement was lost, and writes the first version", () =>
    Effect.gen(function* () {
      const sink = yield* MemorySink.MemorySink
      yield* sink.script(MemorySink.loseAnswer)
      yield* append("a1", "a2")
      yield* TestClock.adjust("1 minute")
      const feed = yield* sink.feed
      assert.deepStrictEqual(yield* feedIds, ["a1", "a2"])
      for (const entry of feed) assert.strictEqual((yield* rowOf(entry.eventId)).version, entry.version)
      assert.isAbove((yield* sink.calls).length, 1)
    }).pipe(Effect.provide(scheduled()))
  )

  it.effect("abandons a publish at its timeout, and charges no event", () =>
    Effect.gen(function* () {
      const pump = yield* Pump.Pump
      const { release } = yield* hangNextPublish
      yield* append("a1")
      yield* TestClock.adjust("9999 millis")
      yield* stateIs(pump, "publishing")
      yield* TestClock.adjust("1 millis")
      yield* stateIs(pump, "unavailable")
      assert.strictEqual((yield* rowOf("a1")).attemptCount, 0)
      yield* release
      yield* TestClock.adjust("100 millis")
      assert.deepStrictEqual(yield* feedIds, ["a1"])
    }).pipe(Effect.provide(scheduled({ publishTimeout: "10 seconds" })))
  )

  it.effect("keeps what a slow sink published until its deadline, and continues from there", () =>
    Effect.gen(function* () {
      let version = 0
      const slow = Sink.fromAppend({
        name: "slow",
        append: () =>
          Effect.delay(
            Effect.sync(() => Sink.published(ControlVersion.make(++version))),
            "1 second"
          )
      })
      const { pump, stop } = yield* startPump({ publishTimeout: "10 seconds" }).pipe(
        Effect.provideService(Sink.Sink, slow)
      )
      const ids = Array.from({ length: 20 }, (_, n) => `a${n}`)
      yield* append(...ids)
      yield* TestClock.adjust("9 seconds")
      assert.strictEqual((yield* pump.status).published, 8)
      yield* TestClock.adjust("15 seconds")
      assert.deepInclude(yield* pump.status, { published: 20, failures: 0 })
      assert.strictEqual(version, 20)
      yield* stop
    }).pipe(Effect.provide(base))
  )

  it.live("logs an outage once", () => {
    const warnings: Array<unknown> = []
    const logger = Logger.make(({ logLevel, message }) => {
      if (logLevel === LogLevel.Warning) warnings.push(message)
    })
    return Effect.gen(function* () {
      const sink = yield* MemorySink.MemorySink
      yield* sink.setAvailable(false)
      yield* append("a1")
      yield* Effect.repeat(Effect.delay(sink.calls, "10 millis"), { until: (calls) => calls.length > 3 })
      assert.deepStrictEqual(warnings, [["The pump cannot publish and backs off"]])
    }).pipe(
      Effect.provide(
        scheduled({ retry: Schedule.spaced("20 millis") }).pipe(
          Layer.provide(Logger.replace(Logger.defaultLogger, logger))
        )
      )
    )
  })

  it.effect("logs once that it publishes again, after how long, and how much is pending", () => {
    const lines: Array<unknown> = []
    const logger = Logger.make(({ logLevel, message }) => {
      if (logLevel === LogLevel.Info) lines.push(message)
    })
    return Effect.gen(function* () {
      const sink = yield* MemorySink.MemorySink
      yield* sink.setAvailable(false)
      yield* append("a1", "a2", "a3")
      yield* TestClock.adjust("52 seconds")
      yield* sink.setAvailable(true)
      yield* TestClock.adjust("1 seconds")
      yield* append("a4")
      yield* settle
      assert.deepStrictEqual(yield* feedIds, ["a1", "a2", "a3", "a4"])
      assert.deepStrictEqual(lines, [["Publishing again after 53 s; 1 pending"]])
    }).pipe(
      Effect.provide(
        Layer.provideMerge(scheduled({ batchSize: 2, retry: Schedule.spaced("1 second") }), Logger.add(logger))
      )
    )
  })

  it.effect("charges a defect of the sink only to the event that causes it", () =>
    Effect.gen(function* () {
      const pump = yield* Pump.Pump
      const sink = yield* MemorySink.MemorySink
      yield* sink.dieOnEvent("a2", { times: 2 })
      yield* append("a1", "a2", "a3", "b1")
      yield* settle
      assert.deepStrictEqual(new Set(yield* feedIds), new Set(["a1", "b1"]))
      const row = yield* rowOf("a2")
      assert.strictEqual(row.attemptCount, 1)
      assert.match(row.lastError!, /^The sink died: /)
      yield* append("b2")
      yield* settle
      assert.include(yield* feedIds, "b2")
      yield* stateIs(pump, "idle")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(
        (yield* feedIds).filter((id) => id.startsWith("a")),
        ["a1", "a2", "a3"]
      )
    }).pipe(Effect.provide(scheduled()))
  )

  it.effect("survives a store that fails, and one that dies", () =>
    Effect.gen(function* () {
      const pump = yield* Pump.Pump
      const store = yield* MemoryOutboxStore.MemoryOutboxStore
      yield* append("a1")
      yield* settle
      yield* store.breakWith(new OutboxStore.OutboxError({ message: "connection lost", retryable: true }))
      yield* TestClock.adjust("10 seconds")
      yield* stateIs(pump, "unavailable")
      assert.strictEqual((yield* pump.status).lastError?.message, "connection lost")
      yield* store.breakWith(undefined)
      yield* append("a2")
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* feedIds, ["a1", "a2"])
    }).pipe(Effect.provide(scheduled()))
  )

  it.effect("drain fails with the typed reason, and does nothing while paused", () =>
    Effect.gen(function* () {
      const { pump, stop } = yield* startPump()
      const sink = yield* MemorySink.MemorySink
      yield* pump.pause
      yield* append("a1")
      assert.deepInclude({ ...(yield* pump.drain) }, { batches: 0 })
      yield* stateIs(pump, "paused")
      yield* sink.setAvailable(false)
      yield* pump.resume
      assert.strictEqual((yield* Effect.flip(pump.drain))._tag, "SinkUnavailable")
      yield* stop
    }).pipe(Effect.provide(base))
  )

  it.effect("pauses after the write-back of what is in flight, and resumes with what was appended meanwhile", () =>
    Effect.gen(function* () {
      const pump = yield* Pump.Pump
      const { release } = yield* hangNextPublish
      yield* append("a1")
      yield* settle
      const pausing = yield* Effect.fork(pump.pause)
      yield* settle
      assert.isNull(yield* Effect.map(Fiber.poll(pausing), (exit) => (exit._tag === "None" ? null : exit.value)))
      yield* release
      yield* Fiber.join(pausing)
      assert.isNumber((yield* rowOf("a1")).version)
      yield* append("a2")
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(yield* feedIds, ["a1"])
      yield* stateIs(pump, "paused")
      yield* pump.resume
      yield* settle
      assert.deepStrictEqual(yield* feedIds, ["a1", "a2"])
    }).pipe(Effect.provide(scheduled()))
  )

  it.effect("streams its changes", () =>
    Effect.gen(function* () {
      const { pump, stop } = yield* startPump()
      const states = yield* pump.changes.pipe(
        Stream.map((status) => status.state),
        Stream.changes,
        Stream.takeUntil((state) => state === "stopped"),
        Stream.runCollect,
        Effect.fork
      )
      yield* settle
      yield* append("a1")
      yield* settle
      yield* pump.pause
      yield* settle
      yield* pump.resume
      yield* settle
      yield* stop
      const seen = Chunk.toReadonlyArray(yield* Fiber.join(states))
      for (const state of ["idle", "publishing", "paused", "stopped"]) assert.include(seen, state)
      assert.deepInclude({ ...(yield* pump.status) }, { published: 1, batches: 1, sink: "memory" })
    }).pipe(Effect.provide(base))
  )

  it.effect("is inert with the nop sink: no query, no fiber, no connection", () =>
    Effect.gen(function* () {
      const touched: Array<string> = []
      const refuse = (name: string) =>
        Effect.suspend(() => {
          touched.push(name)
          return Effect.dieMessage(name)
        })
      const store = new Proxy({} as OutboxStore.OutboxStore["Type"], { get: (_, name) => () => refuse(String(name)) })
      yield* Effect.gen(function* () {
        const pump = yield* Pump.Pump
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(yield* pump.drain, { batches: 0, published: 0, failed: 0, parked: 0 })
        yield* pump.pause
        yield* pump.resume
        yield* stateIs(pump, "inert")
      }).pipe(
        Effect.provide(
          Pump.layer.pipe(
            Layer.provide(Sink.layerNop),
            Layer.provide(Layer.succeed(OutboxStore.OutboxStore, store)),
            Layer.provide(Layer.succeed(WakeUp.WakeUp, { arm: refuse("arm") })),
            Layer.provide(PumpConfig.layerDefaults)
          )
        )
      )
      assert.deepStrictEqual(touched, [])
    })
  )
})

/** A pump that is drained, on a store that a test changes. */
const drained = (
  change: (store: OutboxStore.OutboxStore["Type"]) => OutboxStore.OutboxStore["Type"],
  options: Config = {}
) =>
  Effect.gen(function* () {
    const store = yield* OutboxStore.OutboxStore
    const context = yield* Layer.build(
      Pump.layerManual.pipe(
        Layer.provide(config({ batchSize: 2, ...options })),
        Layer.provide(Layer.succeed(OutboxStore.OutboxStore, change(store)))
      )
    )
    return Context.get(context, Pump.Pump)
  })

/** Counts claims, and changes them. */
const claiming =
  (count: () => void, change: (claim: OutboxStore.Claim) => OutboxStore.Claim = (claim) => claim) =>
  (store: OutboxStore.OutboxStore["Type"]): OutboxStore.OutboxStore["Type"] => ({
    ...store,
    claim: (options) =>
      Effect.map(store.claim(options), (result) => {
        count()
        return result._tag === "Claim" ? change(result) : result
      })
  })

describe("Pump, with one lane to publish", () => {
  it.effect("publishes what follows during the write-back of what was before, on one claim", () =>
    Effect.gen(function* () {
      const sink = yield* MemorySink.MemorySink
      const recorded = yield* Effect.makeLatch(false)
      let claims = 0
      const pump = yield* drained(
        claiming(
          () => claims++,
          (claim) => ({ ...claim, record: (settlement) => Effect.zipRight(recorded.await, claim.record(settlement)) })
        )
      )
      yield* append("a1", "a2", "a3", "a4", "a5", "a6", "a7")
      const draining = yield* Effect.fork(pump.drain)
      yield* settle
      // The second batch was published while the first one is not recorded yet, and the third one was not.
      assert.deepStrictEqual(yield* feedIds, ["a1", "a2", "a3", "a4"])
      assert.isUndefined((yield* rowOf("a1")).version)
      yield* recorded.open
      assert.deepInclude({ ...(yield* Fiber.join(draining)) }, { published: 7, batches: 4 })
      assert.strictEqual(claims, 1)
      assert.deepStrictEqual(
        (yield* sink.feed).map(({ version }) => Number(version)),
        yield* Effect.forEach(["a1", "a2", "a3", "a4", "a5", "a6", "a7"], (id) =>
          Effect.map(rowOf(id), ({ version }) => version!)
        )
      )
    }).pipe(Effect.scoped, Effect.provide(base))
  )

  it.effect("leaves it after a batch if another lane has something", () =>
    Effect.gen(function* () {
      const pump = yield* drained((store) => store, { concurrency: 1 })
      const { release } = yield* hangNextPublish
      yield* append("a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8")
      const draining = yield* Effect.fork(pump.drain)
      yield* settle
      yield* append("b1")
      yield* release
      yield* Fiber.join(draining)
      const feed = yield* feedIds
      assert.strictEqual(feed.length, 9)
      // The second batch can have been read before b1 was there.
      assert.isAtMost(feed.indexOf("b1"), 6)
    }).pipe(Effect.scoped, Effect.provide(base))
  )

  it.effect("gives the lane back after a second", () =>
    Effect.gen(function* () {
      let claims = 0
      const pump = yield* drained(claiming(() => claims++))
      const sink = yield* MemorySink.MemorySink
      yield* append("a1", "a2", "a3", "a4")
      yield* sink.script(MemorySink.after(Effect.sleep("1 second")))
      const draining = yield* Effect.fork(pump.drain)
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(draining)
      assert.strictEqual(claims, 2)
    }).pipe(Effect.scoped, Effect.provide(base))
  )

  it.effect("publishes again, with the same ids, what it could not record", () =>
    Effect.gen(function* () {
      const error = new OutboxStore.OutboxError({ message: "the connection is lost", retryable: true })
      const pump = yield* drained(
        claiming(
          () => {},
          (claim) => ({ ...claim, record: () => error })
        )
      )
      yield* append("a1", "a2", "a3", "a4", "a5")
      assert.strictEqual(yield* Effect.flip(pump.drain), error)
      // What was published on a claim that fails is not written back either.
      assert.isUndefined((yield* rowOf("a3")).version)
      const healed = yield* drained((store) => store)
      assert.deepInclude({ ...(yield* healed.drain) }, { published: 5 })
      assert.deepStrictEqual(yield* feedIds, ["a1", "a2", "a3", "a4", "a5"])
    }).pipe(Effect.scoped, Effect.provide(base))
  )

  it.effect("stops after the batch that is in flight", () =>
    Effect.gen(function* () {
      const { stop } = yield* startPump({ batchSize: 2 })
      const { release } = yield* hangNextPublish
      yield* append("a1", "a2", "a3", "a4")
      yield* settle
      const stopping = yield* Effect.fork(stop)
      yield* settle
      yield* release
      yield* Fiber.join(stopping)
      assert.deepStrictEqual(yield* feedIds, ["a1", "a2"])
      assert.isDefined((yield* rowOf("a2")).version)
    }).pipe(Effect.provide(base))
  )
})

describe("Pump, stopped", () => {
  it.effect("before a claim: ends at once", () =>
    Effect.gen(function* () {
      const { pump, stop } = yield* startPump()
      yield* settle
      yield* stateIs(pump, "idle")
      yield* stop
      yield* append("a1")
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(yield* feedIds, [])
      yield* stateIs(pump, "stopped")
    }).pipe(Effect.provide(base))
  )

  it.effect("during a publish: finishes it and its write-back, and starts no new batch", () =>
    Effect.gen(function* () {
      const sink = yield* MemorySink.MemorySink
      const { pump, stop } = yield* startPump({ batchSize: 2, concurrency: 1 })
      const { release } = yield* hangNextPublish
      yield* append("a1", "a2", "a3", "b1")
      yield* settle
      const stopping = yield* Effect.fork(stop)
      yield* TestClock.adjust("5 seconds")
      yield* stateIs(pump, "stopping")
      yield* release
      yield* Fiber.join(stopping)
      const published = yield* feedIds
      assert.strictEqual((yield* sink.calls).length, 1)
      assert.isAbove(published.length, 0)
      const rows = yield* Effect.flatMap(MemoryOutboxStore.MemoryOutboxStore, ({ rows }) => rows)
      assert.deepStrictEqual(
        new Set(rows.filter((row) => row.version !== undefined).map((row) => row.eventId)),
        new Set(published)
      )
    }).pipe(Effect.provide(base))
  )

  it.effect(
    "during a publish that does not end: interrupts it at the drain timeout, and publishes its events later",
    () =>
      Effect.gen(function* () {
        const { stop } = yield* startPump({ publishTimeout: "1 minute", drainTimeout: "15 seconds" })
        const { release } = yield* hangNextPublish
        yield* append("a1")
        yield* settle
        const stopping = yield* Effect.fork(stop)
        yield* TestClock.adjust("14999 millis")
        assert.strictEqual((yield* Fiber.poll(stopping))._tag, "None")
        yield* TestClock.adjust("1 millis")
        yield* Fiber.join(stopping)
        yield* release
        assert.deepInclude({ ...(yield* rowOf("a1")) }, { attemptCount: 0, version: undefined })
        const next = yield* startPump()
        yield* settle
        assert.deepStrictEqual(yield* feedIds, ["a1"])
        yield* next.stop
      }).pipe(Effect.provide(base))
  )

  it.live("during a publish that cannot be interrupted: leaves it running", () =>
    Effect.gen(function* () {
      const sink = yield* MemorySink.MemorySink
      yield* sink.script(
        () => Effect.uninterruptible(Effect.never),
        () => Effect.uninterruptible(Effect.never)
      )
      const { pump, stop } = yield* startPump({ publishTimeout: "100 millis", drainTimeout: "200 millis" })
      yield* append("a1")
      const { failures } = yield* Effect.repeat(Effect.delay(pump.status, "5 millis"), {
        until: ({ failures }) => failures > 0
      })
      assert.strictEqual(failures, 1)
      const stopped = yield* stop.pipe(Effect.disconnect, Effect.timeoutOption("5 seconds"))
      assert.strictEqual(stopped._tag, "Some")
    }).pipe(Effect.provide(base))
  )

  it.effect("during a drain: starts no new batch for it either", () =>
    Effect.gen(function* () {
      const sink = yield* MemorySink.MemorySink
      const { pump, stop } = yield* startPump({ batchSize: 1, concurrency: 1 })
      yield* pump.pause
      yield* append(...Array.from({ length: 10 }, (_, n) => `a${n}`))
      const { release } = yield* hangNextPublish
      yield* pump.resume
      const draining = yield* Effect.fork(pump.drain)
      yield* settle
      const stopping = yield* Effect.fork(stop)
      yield* settle
      yield* release
      yield* Fiber.join(stopping)
      yield* Fiber.interrupt(draining)
      assert.strictEqual((yield* sink.calls).length, 1)
    }).pipe(Effect.provide(base))
  )

  it.effect("between publish and write-back: writes back", () =>
    Effect.gen(function* () {
      const real = yield* OutboxStore.OutboxStore
      const reached = yield* Deferred.make<void>()
      const proceed = yield* Deferred.make<void>()
      const slow = OutboxStore.OutboxStore.of({
        ...real,
        claim: (options) =>
          Effect.map(real.claim(options), (claim) =>
            claim._tag === "Claim"
              ? {
                  ...claim,
                  settle: (settlement) =>
                    Deferred.succeed(reached, undefined).pipe(
                      Effect.zipRight(Deferred.await(proceed)),
                      Effect.zipRight(claim.settle(settlement))
                    )
                }
              : claim
          )
      })
      const { stop } = yield* startPump().pipe(Effect.provideService(OutboxStore.OutboxStore, slow))
      yield* append("a1")
      yield* Deferred.await(reached)
      const stopping = yield* Effect.fork(stop)
      yield* settle
      yield* Deferred.succeed(proceed, undefined)
      yield* Fiber.join(stopping)
      assert.isNumber((yield* rowOf("a1")).version)
    }).pipe(Effect.provide(base))
  )

  it.effect("during back-off: ends at once", () =>
    Effect.gen(function* () {
      const sink = yield* MemorySink.MemorySink
      yield* sink.setAvailable(false)
      const { pump, stop } = yield* startPump()
      yield* append("a1")
      yield* TestClock.adjust("10 seconds")
      yield* stateIs(pump, "unavailable")
      yield* stop
      yield* stateIs(pump, "stopped")
      assert.deepInclude({ ...(yield* rowOf("a1")) }, { attemptCount: 0, version: undefined })
    }).pipe(Effect.provide(base))
  )

  it.effect("while paused: ends at once", () =>
    Effect.gen(function* () {
      const { pump, stop } = yield* startPump()
      yield* pump.pause
      yield* settle
      yield* stop
      yield* stateIs(pump, "stopped")
    }).pipe(Effect.provide(base))
  )

  it.effect("survives a sink that interrupts itself", () =>
    Effect.gen(function* () {
      let interrupts = 2
      const sink = Sink.Sink.of({
        name: "self-interrupting",
        inert: false,
        publish: (batch) =>
          interrupts-- > 0
            ? Effect.interrupt
            : Effect.succeed(batch.events.map((_, index) => Sink.published(ControlVersion.make(index + 1))))
      })
      const { pump, stop } = yield* startPump().pipe(Effect.provideService(Sink.Sink, sink))
      yield* append("a1")
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* rowOf("a1")).version, 1)
      assert.strictEqual((yield* pump.status).failures, 2)
      yield* stop
    }).pipe(Effect.provide(base))
  )

  it.effect("survives a sink that breaks its contract", () =>
    Effect.gen(function* () {
      const answers: Array<ReadonlyArray<Sink.Outcome>> = [
        [],
        [Sink.notAttempted],
        [Sink.published(0 as ControlVersion.ControlVersion)],
        [Sink.published(ControlVersion.make(8))]
      ]
      const sink = Sink.Sink.of({
        name: "broken",
        inert: false,
        publish: () => Effect.sync(() => answers.shift()!)
      })
      const { pump, stop } = yield* startPump().pipe(Effect.provideService(Sink.Sink, sink))
      yield* append("a1")
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* rowOf("a1")).version, 8)
      assert.strictEqual((yield* pump.status).failures, 3)
      yield* stop
    }).pipe(Effect.provide(base))
  )

  it.effect("publishes nothing from a claim that is older than the publish timeout", () =>
    Effect.gen(function* () {
      const real = yield* OutboxStore.OutboxStore
      const sink = yield* MemorySink.MemorySink
      let frozen = true
      // A process that was frozen after its claim wakes up long after others have gone on.
      const freezing = OutboxStore.OutboxStore.of({
        ...real,
        claim: (options) =>
          Effect.tap(real.claim(options), () => {
            const freeze = frozen
            frozen = false
            return freeze ? TestClock.adjust("10 seconds") : Effect.void
          })
      })
      const { pump, stop } = yield* startPump({ publishTimeout: "10 seconds" }).pipe(
        Effect.provideService(OutboxStore.OutboxStore, freezing)
      )
      yield* append("a1")
      yield* TestClock.adjust("10 seconds")
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* feedIds, ["a1"])
      assert.strictEqual((yield* pump.status).failures, 1)
      const [call, ...others] = yield* sink.calls
      assert.isEmpty(others)
      assert.isAbove(call!.deadline, 20_000)
      yield* stop
    }).pipe(Effect.provide(base))
  )
})
