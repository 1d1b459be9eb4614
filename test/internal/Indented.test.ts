import { assert, describe, it } from "@effect/vitest"
import { cut, deepest, indented, longest, longestLayout } from "../../src/internal/indented.js"

const nested = (depth: number, inner: string) => "[".repeat(depth) + inner + "]".repeat(depth)

describe("indented", () => {
  it("lays JSON out, and keeps numbers and strings as they are written", () => {
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

  it("leaves a text that is too long, or whose layout would be, as it is", () => {
    const long = JSON.stringify(["x".repeat(longest)])
    assert.strictEqual(indented(long), long)
    // Each of its numbers would become a line with 64 spaces.
    const wide = nested(deepest, Array.from({ length: 100_000 }, () => "1").join(","))
    assert.isBelow(wide.length, longest)
    assert.strictEqual(indented(wide), wide)
  })
})

describe("cut", () => {
  it("takes the beginning of what is too long to be shown, and no half character", () => {
    assert.isUndefined(cut("x".repeat(longestLayout)))
    assert.strictEqual(cut("x".repeat(longestLayout + 1)), "x".repeat(longest))
    assert.isTrue(cut(`x${"😀".repeat(longestLayout)}`)!.isWellFormed())
  })
})
