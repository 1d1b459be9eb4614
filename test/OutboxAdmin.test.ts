import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { OutboxAdmin, OutboxStore } from "../src/index.js"
import { MemoryOutboxAdmin, MemoryOutboxStore } from "../src/testing/index.js"
import { outboxAdminSuite } from "./support/outboxAdminSuite.js"

const layer = MemoryOutboxAdmin.layer.pipe(Layer.provideMerge(MemoryOutboxStore.layer))

outboxAdminSuite("OutboxAdmin in memory", () => layer)

describe("OutboxAdmin in memory", () => {
  it.effect("fails while the store is told to fail", () =>
    Effect.gen(function* () {
      const admin = yield* OutboxAdmin.OutboxAdmin
      const store = yield* MemoryOutboxStore.MemoryOutboxStore
      const gone = new OutboxStore.OutboxError({ message: "gone", retryable: true })
      const by = { actor: "ann", reason: "test" }
      yield* store.breakWith(gone)
      for (const asked of [
        admin.identity(),
        admin.pumps(),
        admin.leave("p1"),
        admin.overview({ limit: 1 }),
        admin.events({}, { limit: 1 }),
        admin.event("e1"),
        admin.redrive({}, by),
        admin.park("e1", by),
        admin.discard("e1", by),
        admin.record("pause", by),
        admin.audit({ limit: 1 }),
        admin.prune({ _tag: "Count", count: 1 }, { limit: 1 })
      ]) {
        assert.strictEqual(yield* Effect.flip<unknown, unknown, never>(asked), gone)
      }
    }).pipe(Effect.provide(layer))
  )
})
