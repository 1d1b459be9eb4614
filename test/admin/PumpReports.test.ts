import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Logger, LogLevel, Scope, TestClock } from "effect"
import * as PumpReports from "../../src/admin/PumpReports.js"
import { Outbox, OutboxAdmin, OutboxStore, Pump, PumpConfig, Sink } from "../../src/index.js"
import { MemoryOutboxAdmin, MemoryOutboxStore, MemorySink } from "../../src/testing/index.js"

const started = (check: Effect.Effect<void, Sink.SinkUnavailable>) =>
  Effect.gen(function* () {
    const warnings: Array<unknown> = []
    const logger = Logger.make(({ logLevel, message }) => {
      if (logLevel === LogLevel.Warning) warnings.push(message)
    })
    const memory = MemorySink.layer
    const checked = Layer.map(memory, (context) =>
      Context.add(context, Sink.Sink, { ...Context.get(context, Sink.Sink), check })
    )
    const scope = yield* Scope.make()
    const context = yield* Layer.buildWithScope(
      PumpReports.layer.pipe(
        Layer.provideMerge(Pump.layerManual.pipe(Layer.provide(Layer.orDie(PumpConfig.layer({}))))),
        Layer.provideMerge(checked),
        Layer.provideMerge(Layer.merge(MemoryOutboxAdmin.layer, Outbox.layer)),
        Layer.provideMerge(MemoryOutboxStore.layer),
        Layer.provide(Logger.replace(Logger.defaultLogger, logger))
      ),
      scope
    )
    yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
    const admin = Context.get(context, OutboxAdmin.OutboxAdmin)
    return {
      admin,
      sink: Context.get(context, MemorySink.MemorySink),
      context,
      warnings,
      store: Context.get(context, MemoryOutboxStore.MemoryOutboxStore),
      stop: Scope.close(scope, Exit.void)
    }
  })

describe("PumpReports", () => {
  it.scoped("reports what the settings of the feed limit", () =>
    Effect.gen(function* () {
      const { admin, sink } = yield* started(Effect.void)
      yield* TestClock.adjust("2 seconds")
      assert.notProperty((yield* admin.pumps())[0], "bounds")
      const bounds = [{ message: "nodes more than 5 messages behind cannot catch up", reach: { events: 5 } }]
      yield* sink.setBounds(bounds)
      yield* TestClock.adjust("20 seconds")
      assert.deepStrictEqual((yield* admin.pumps())[0]?.bounds, bounds)
    })
  )

  it.scoped("reports state, rate and last publish, and takes the report back at the end", () =>
    Effect.gen(function* () {
      const { admin, context, stop } = yield* started(Effect.void)
      yield* TestClock.adjust("2 seconds")
      const [first, ...others] = yield* admin.pumps()
      assert.deepStrictEqual(others, [])
      assert.deepInclude(first, { state: "idle", sink: "memory", pid: process.pid, published: 0, lost: false })
      assert.notProperty(first, "trouble")
      const outbox = Context.get(context, Outbox.Outbox)
      const events = Array.from({ length: 30 }, (_, index) => ({ event_id: `e${index}`, type: "x" }))
      yield* outbox.withTransaction(outbox.appendAll(events))
      yield* Context.get(context, Pump.Pump).drain
      yield* TestClock.adjust("20 seconds")
      const [busy] = yield* admin.pumps()
      assert.deepInclude(busy, { published: 30, lastPublishedAt: 2_000 })
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual((yield* admin.pumps())[0]?.rate, 0)
      yield* stop
      assert.deepStrictEqual(yield* admin.pumps(), [])
    })
  )

  it.scoped("names a sink that is broken, and since when, though nothing is pending", () =>
    Effect.gen(function* () {
      let broken = true
      const unreachable = new Sink.SinkUnavailable({ sink: "memory", reason: "unreachable", message: "no broker" })
      const { admin } = yield* started(Effect.suspend(() => (broken ? unreachable : Effect.void)))
      yield* TestClock.adjust("2 seconds")
      const [pump] = yield* admin.pumps()
      assert.deepStrictEqual(pump?.trouble, { of: "sink", message: "no broker", since: 0 })
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* admin.pumps())[0]?.trouble?.since, 0, "the outage began once")
      broken = false
      yield* TestClock.adjust("20 seconds")
      assert.notProperty((yield* admin.pumps())[0], "trouble")
    })
  )

  it.scoped("says once that it cannot report, and reports again when it can", () =>
    Effect.gen(function* () {
      const { admin, store, warnings } = yield* started(Effect.void)
      yield* TestClock.adjust("2 seconds")
      yield* store.breakWith(new OutboxStore.OutboxError({ message: "gone", retryable: true }))
      yield* TestClock.adjust("50 seconds")
      assert.lengthOf(warnings, 1)
      yield* store.breakWith(undefined)
      assert.isTrue((yield* admin.pumps())[0]?.lost)
      yield* TestClock.adjust("15 seconds")
      assert.isFalse((yield* admin.pumps())[0]?.lost)
    })
  )
})
