import { assert, describe, it } from "@effect/vitest"
import * as Bounds from "../../src/internal/bounds.js"
import { deepest, indented, longest } from "../../src/internal/indented.js"

const nested = (depth: number, inner: string) => "[".repeat(depth) + inner + "]".repeat(depth)

describe("indented", () => {
  it("indents JSON, and keeps the text of numbers and strings", () => {
    assert.strictEqual(
      indented('{"a":[1.0,12345678901234567890,{}],"b":"{\\"x\\": [,]}"}'),
      '{\n  "a": [\n    1.0,\n    12345678901234567890,\n    {}\n  ],\n  "b": "{\\"x\\": [,]}"\n}'
    )
    assert.strictEqual(indented("{not json"), "{not json")
  })

  it("breaks no line below the deepest level", () => {
    for (const depth of [deepest, deepest + 1, 6500]) {
      const json = nested(depth, "1,2")
      const text = indented(json)
      assert.strictEqual(text.replaceAll(/\s/g, ""), json)
      assert.isAtMost(text.length, json.length + 4 * deepest * (deepest + 2))
    }
    assert.include(indented(nested(deepest, "1,2")), `\n${"  ".repeat(deepest)}1,\n`)
    assert.include(indented(nested(deepest + 1, "1,2")), "[1,2]")
  })

  it("leaves a text that is too long, or whose layout would be, unchanged", () => {
    const long = JSON.stringify(["x".repeat(longest)])
    assert.strictEqual(indented(long), long)
    // Each of its numbers would become a line with 64 spaces.
    const wide = nested(deepest, Array.from({ length: 100_000 }, () => "1").join(","))
    assert.isBelow(wide.length, longest)
    assert.strictEqual(indented(wide), wide)
  })
})

describe("shownPayload", () => {
  it("takes the beginning of a long payload, without half a character", () => {
    const bytes = Bounds.shownPayloadBytes
    assert.deepStrictEqual(Bounds.shownPayload("x".repeat(bytes)), { payload: "x".repeat(bytes), payloadBytes: bytes })
    assert.deepStrictEqual(Bounds.shownPayload("x".repeat(bytes + 1)), {
      payload: "x".repeat(Bounds.shownCharacters),
      payloadBytes: bytes + 1,
      payloadCut: true
    })
    assert.isTrue(Bounds.shownPayload(`x${"😀".repeat(bytes)}`).payload.isWellFormed())
  })
})

describe("cutTexts", () => {
  it("keeps texts within the bounds, and cuts and names longer ones", () => {
    const fits = { eventId: "e1", type: "x".repeat(1024), tenantId: undefined, orderingKey: "" }
    assert.strictEqual(Bounds.cutTexts(fits), fits)
    const { cut, orderingKey, type } = Bounds.cutTexts({
      eventId: "e1",
      type: "x".repeat(300_000),
      orderingKey: "😀".repeat(300)
    })
    assert.deepStrictEqual(cut, ["type", "orderingKey"])
    assert.strictEqual(type, `${"x".repeat(200)}…`)
    assert.strictEqual(orderingKey, `${"😀".repeat(200)}…`)
  })
})
