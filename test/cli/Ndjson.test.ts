import { assert, describe, it } from "@effect/vitest"
import { Either, FastCheck as fc } from "effect"
import * as Ndjson from "../../src/cli/internal/ndjson.js"

/** All lines of a text that comes in chunks of the given sizes, over and over. */
const split = (bytes: Uint8Array, sizes: ReadonlyArray<number>, maxBytes = 1_000) => {
  const splitter = Ndjson.make(maxBytes)
  const lines: Array<Ndjson.Line> = []
  for (let from = 0, index = 0; from < bytes.length; index++) {
    const size = sizes[index % sizes.length]!
    lines.push(...splitter.push(bytes.slice(from, from + size)))
    from += size
  }
  lines.push(...splitter.end())
  return lines
}

const texts = (lines: ReadonlyArray<Ndjson.Line>) =>
  lines.map(({ number, text }) => [number, Either.merge(Either.mapLeft(text, (reason) => `! ${reason}`))])

const encode = (text: string) => new TextEncoder().encode(text)

describe("Ndjson", () => {
  it("finds the same lines whatever the chunks", () => {
    const text = fc
      .array(fc.oneof(fc.string({ unit: "grapheme", maxLength: 20 }), fc.constant("\n")))
      .map((parts) => parts.join(""))
    const sizes = fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 5 })
    fc.assert(
      fc.property(text, sizes, (text, sizes) => {
        const expected = text.split("\n")
        if (expected.at(-1) === "") expected.pop()
        assert.deepStrictEqual(
          texts(split(encode(text), sizes)),
          expected.map((line, index) => [index + 1, line.replace(/^\ufeff/, "")])
        )
      })
    )
  })

  it("counts blank lines, and needs no line feed at the end", () => {
    assert.deepStrictEqual(texts(split(encode("\n\r\na\r\n\nb"), [3])), [
      [1, ""],
      [2, "\r"],
      [3, "a\r"],
      [4, ""],
      [5, "b"]
    ])
  })

  it("stops at a line that is too long, wherever it is cut, and keeps nothing of it", () => {
    for (const sizes of [[1], [7], [100], [2, 50]]) {
      const fits = "x".repeat(50)
      assert.deepStrictEqual(
        texts(split(encode(`a\n${fits}\n${fits}y\nb\n`), sizes, 50)),
        [
          [1, "a"],
          [2, fits],
          [3, "! is longer than 50 bytes"]
        ],
        `chunks of ${sizes.join()}`
      )
    }
    const splitter = Ndjson.make(50)
    const endless = encode("x".repeat(40))
    assert.deepStrictEqual(splitter.push(endless), [])
    assert.strictEqual(splitter.push(endless).length, 1)
    assert.deepStrictEqual(splitter.push(encode("a\nb\n")), [])
    assert.deepStrictEqual(splitter.end(), [])
  })

  it("stops at what is not UTF-8, and drops a byte order mark", () => {
    const bytes = Uint8Array.of(0xef, 0xbb, 0xbf, 0x61, 10, 0xff, 10, 0x62, 10)
    assert.deepStrictEqual(texts(split(bytes, [2])), [
      [1, "a"],
      [2, "! must be UTF-8"]
    ])
  })
})
