import { assert, describe, it } from "@effect/vitest"
import { FastCheck } from "effect"
import { whyChanged } from "../../src/cli/internal/exactJson.js"

describe("ExactJson", () => {
  it("refuses numbers that JavaScript would change", () => {
    for (const number of [
      "9007199254740993",
      "-9007199254740993",
      "12345678901234567890",
      "0.12345678901234567891",
      "1e400"
    ]) {
      assert.include(whyChanged(`{"a":[1,{"b":${number}}]}`) ?? "", `"${number}"`, number)
    }
  })

  it("takes numbers that are only written in another way", () => {
    for (const number of [
      "0",
      "-0",
      "1.0",
      "1e3",
      "1E-7",
      "100000000000000000000",
      "9007199254740992",
      "0.10",
      "5e-324"
    ]) {
      assert.isUndefined(whyChanged(`{"a":${number}}`), number)
    }
  })

  it("refuses a field that is given twice, also where it is escaped, and takes the same name in two objects", () => {
    assert.include(whyChanged(String.raw`{"a":1,"b":{"x":1,"\u0078":2}}`) ?? "", 'the field "x" twice')
    assert.isUndefined(whyChanged('{"a":{"a":1},"b":[{"a":1},{"a":2}],"c":"a\\":1,\\"a"}'))
    assert.isUndefined(whyChanged('{"a":"{\\"a\\":1,\\"a\\":99999999999999999}"}'))
  })

  it("takes all that JSON.stringify writes", () => {
    FastCheck.assert(
      FastCheck.property(FastCheck.jsonValue(), (value) => whyChanged(JSON.stringify(value)) === undefined)
    )
  })
})
