import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Layer, Logger, LogLevel, Scope, TestClock } from "effect"
import { Outbox, OutboxAdmin, OutboxStore, Pump, PumpConfig, Retention } from "../src/index.js"
import { MemoryOutboxAdmin, MemoryOutboxStore, MemorySink } from "../src/testing/index.js"

const by = { actor: "ann", reason: "the disk is full" }

const base = Layer.mergeAll(Outbox.layer, Pump.layerManual, MemoryOutboxAdmin.layer).pipe(
  Layer.provideMerge(MemorySink.layer),
  Layer.provideMerge(MemoryOutboxStore.layer),
  Layer.provide(PumpConfig.layerDefaults),
  Layer.provideMerge(Logger.minimumLogLevel(LogLevel.None))
)

const publish = (count: number) =>
  Effect.gen(function* () {
    const outbox = yield* Outbox.Outbox
    yield* outbox.withTransaction(outbox.appendAll(Array.from({ length: count }, () => ({ type: "x" }))))
    yield* Effect.flatMap(Pump.Pump, (pump) => pump.drain)
  })

const left = Effect.flatMap(MemoryOutboxStore.MemoryOutboxStore, ({ rows }) => Effect.map(rows, (rows) => rows.length))

/** The admin, with a look at each batch that is pruned. */
const observed = (before: (batch: number) => Effect.Effect<void>) =>
  Effect.map(OutboxAdmin.OutboxAdmin, (admin) => {
    let batches = 0
    return OutboxAdmin.OutboxAdmin.of({
      ...admin,
      prune: (retention, options) =>
        Effect.zipRight(
          Effect.suspend(() => before(++batches)),
          admin.prune(retention, options)
        )
    })
  })

const hour = { _tag: "Age", age: Duration.hours(1) } as const

describe("Retention", () => {
  it.scoped("removes old events every minute, in batches with a pause between them", () =>
    Effect.gen(function* () {
      yield* publish(5)
      yield* Layer.build(Retention.layer({ keep: hour, batchSize: 2, pause: "1 second" }))
      yield* TestClock.adjust("59 minutes")
      assert.strictEqual(yield* left, 5)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* left, 3)
      yield* TestClock.adjust("999 millis")
      assert.strictEqual(yield* left, 3)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* left, 1)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* left, 0)
    }).pipe(Effect.provide(base))
  )

  it.scoped("runs at once on request, and records the actor", () =>
    Effect.gen(function* () {
      yield* publish(5)
      const admin = yield* OutboxAdmin.OutboxAdmin
      const retention = yield* Effect.provide(
        Retention.Retention,
        Retention.layerManual({ keep: { _tag: "Count", count: 2 }, batchSize: 10 })
      )
      assert.strictEqual(retention.description, "the newest 2")
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* left, 5)
      assert.strictEqual(yield* retention.runNow(by), 3)
      assert.strictEqual(yield* left, 2)
      const { entries } = yield* admin.audit({ limit: 10 })
      assert.deepStrictEqual(entries, [{ at: 3_600_000, action: "prune", ...by, affected: 3 }])
    }).pipe(Effect.provide(base))
  )

  it.scoped("keeps everything if it is off", () =>
    Effect.gen(function* () {
      yield* publish(5)
      const retention = yield* Effect.provide(Retention.Retention, Retention.layer({ keep: "all" }))
      assert.strictEqual(retention.description, "off")
      yield* TestClock.adjust("1000 days")
      assert.strictEqual((yield* Effect.flip(retention.runNow(by)))._tag, "RetentionOff")
      assert.strictEqual(yield* left, 5)
    }).pipe(Effect.provide(base))
  )

  it.scoped("backs off while the database is unreachable, and recovers by itself", () =>
    Effect.gen(function* () {
      const store = yield* MemoryOutboxStore.MemoryOutboxStore
      let batches = 0
      const admin = yield* observed(() =>
        Effect.sync(() => {
          batches++
        })
      )
      yield* publish(3)
      yield* store.breakWith(new OutboxStore.OutboxError({ message: "gone", retryable: true }))
      yield* TestClock.adjust("2 hours")
      yield* Effect.provideService(Layer.build(Retention.layer({ keep: hour })), OutboxAdmin.OutboxAdmin, admin)
      yield* TestClock.adjust("1 hour")
      // Doubled from 1 second to 1 minute, jittered by a fifth.
      assert.isAtLeast(batches, 50)
      assert.isAtMost(batches, 85)
      yield* store.breakWith(undefined)
      yield* TestClock.adjust("72 seconds")
      assert.strictEqual(yield* left, 0)
    }).pipe(Effect.provide(base))
  )

  it.scoped("finishes the current batch when it is stopped, and starts no other", () =>
    Effect.gen(function* () {
      const began = yield* Effect.makeLatch()
      const goOn = yield* Effect.makeLatch()
      const admin = yield* observed(() => Effect.zipRight(began.open, goOn.await))
      yield* publish(5)
      yield* TestClock.adjust("2 hours")
      const scope = yield* Scope.make()
      yield* Layer.buildWithScope(Retention.layer({ keep: hour, batchSize: 2 }), scope).pipe(
        Effect.provideService(OutboxAdmin.OutboxAdmin, admin)
      )
      yield* began.await
      const closing = yield* Effect.fork(Scope.close(scope, Exit.void))
      yield* Effect.yieldNow()
      assert.isNull(closing.unsafePoll())
      yield* goOn.open
      yield* Fiber.join(closing)
      assert.strictEqual(yield* left, 3)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* left, 3)
    }).pipe(Effect.provide(base))
  )
})
