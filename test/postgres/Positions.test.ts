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

  it("do not move by an older snapshot that is answered after the one that decided", () => {
    const positions = Positions.make()
    positions.advance({ ...nothing, drawn: 0n, xmin: 1n }, 0)
    positions.fence(8n, 20n)
    // Row 5 is open in transaction 10 when the older snapshot is taken, and committed before the newer one.
    const older = { drawn: 8n, xmin: 10n, heads: new Map([[0, 8n]]) }
    const newer = { drawn: 8n, xmin: 20n, heads: new Map([[0, 5n]]) }
    positions.advance(newer, 0)
    positions.advance(older, 0)
    assert.strictEqual(positions.startOf(0), "5")
    assert.strictEqual(positions.startOf(1), "9")
  })

  it("do not move by an older snapshot when the newer one came at the time to forget", () => {
    const positions = Positions.make()
    positions.fence(8n, 20n)
    positions.advance({ drawn: 8n, xmin: 20n, heads: new Map([[0, 5n]]) }, 30_000)
    positions.advance({ drawn: 8n, xmin: 10n, heads: new Map() }, 30_001)
    assert.strictEqual(positions.startOf(0), "0")
    positions.advance({ drawn: 8n, xmin: 20n, heads: new Map([[0, 5n]]) }, 30_002)
    assert.strictEqual(positions.startOf(0), "5")
  })
})
