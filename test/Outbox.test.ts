import { Effect, Layer } from "effect"
import { MemoryOutboxStore } from "../src/testing/index.js"
import { InsertRaw, outboxSuite } from "./support/outboxSuite.js"

outboxSuite("Outbox in memory", () =>
  Layer.effect(
    InsertRaw,
    Effect.map(MemoryOutboxStore.MemoryOutboxStore, ({ insert }) => ({ insert }))
  ).pipe(Layer.provideMerge(MemoryOutboxStore.layer))
)
