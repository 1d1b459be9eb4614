import { assert, describe, it } from "@effect/vitest"
import * as Positions from "../../src/postgres/internal/positions.js"

describe("Positions", () => {
  const nothing = { heads: new Map<number, bigint>() }

  it("pass what is decided, and nothing else", () => {
    const positions = Positions.make()
    positions.fence(5n, 9n)
    positions.advance({ ...nothing, drawn: 5n, xmin: 8n }, 0)
    assert.strictEqual(positions.startOf(0), "1")
    positions.advance({ ...nothing, drawn: 5n, xmin: 9n }, 0)
    assert.strictEqual(positions.startOf(0), "6")
  })

  it("do not learn from a fence of a sequence that was set back since", () => {
    const positions = Positions.make()
    positions.fence(1n, 5n)
    positions.advance({ ...nothing, drawn: 1n, xmin: 5n }, 0)
    positions.fence(5n, 9n)
    positions.advance({ ...nothing, drawn: 1n, xmin: 9n }, 0)
    assert.strictEqual(positions.startOf(0), "1")
  })
})
