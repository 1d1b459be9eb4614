import { assert, describe, it } from "@effect/vitest"
import { Effect, LogLevel } from "effect"
import * as LogSettings from "../../src/cli/LogSettings.js"
import { given, messageOf } from "../support/settings.js"

describe("LogSettings", () => {
  it.effect("reads level and format in any case", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* given({})(LogSettings.logLevel), LogLevel.Info)
      assert.strictEqual(yield* given({ LOG_LEVEL: "Debug" })(LogSettings.logLevel), LogLevel.Debug)
      assert.strictEqual(yield* given({ LOG_FORMAT: "JSON" })(LogSettings.logFormat), "json")
    })
  )

  it.effect("refuses what it does not know", () =>
    Effect.gen(function* () {
      const format = yield* messageOf(LogSettings.logFormat, { LOG_FORMAT: "xml" })
      assert.strictEqual(format, 'LOG_FORMAT: got "xml", valid is one of json, logfmt, pretty')
      const level = yield* messageOf(LogSettings.logLevel, { LOG_LEVEL: "loud" })
      assert.match(level, /^LOG_LEVEL: got "loud", valid is one of all, trace, debug, .*, none/)
    })
  )
})
