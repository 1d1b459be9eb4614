import { assert, it } from "@effect/vitest"
import { Outbox, Pump, PumpConfig } from "controlpublish"
import { MemoryOutboxStore, MemorySink } from "controlpublish/testing"
import { Effect, Layer, TestClock } from "effect"

const Test = Layer.merge(Outbox.layer, Pump.layer).pipe(
  Layer.provideMerge(Layer.mergeAll(MemorySink.layer, MemoryOutboxStore.layer, PumpConfig.layerDefaults))
)

it.effect("an outage of the broker loses nothing", () =>
  Effect.gen(function* () {
    const outbox = yield* Outbox.Outbox
    const sink = yield* MemorySink.MemorySink
    yield* sink.setAvailable(false)
    const id = yield* outbox.withTransaction(outbox.append({ type: "tenant.created", tenant_id: "t1" }))
    yield* TestClock.adjust("1 minute")
    assert.deepStrictEqual(yield* sink.feed, [])
    yield* sink.setAvailable(true)
    yield* TestClock.adjust("1 minute")
    assert.deepStrictEqual(
      (yield* sink.feed).map((entry) => entry.eventId),
      [id]
    )
  }).pipe(Effect.provide(Test))
)
