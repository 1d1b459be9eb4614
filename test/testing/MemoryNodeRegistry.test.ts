import { describe } from "@effect/vitest"
import { TestClock } from "effect"
import { MemoryNodeRegistry } from "../../src/testing/index.js"
import { nodeRegistrySuite } from "../support/nodeRegistrySuite.js"

describe("MemoryNodeRegistry", () => {
  nodeRegistrySuite({
    layer: MemoryNodeRegistry.layer,
    pass: (millis) => TestClock.adjust(millis),
    exact: true
  })
})
