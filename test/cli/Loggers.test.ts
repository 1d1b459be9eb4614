import { SqlError } from "@effect/sql"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Logger, LogLevel } from "effect"
import * as Loggers from "../../src/cli/internal/loggers.js"
import type { LogFormat } from "../../src/cli/LogSettings.js"
import { OutboxStore, Sink } from "../../src/index.js"

/** As `pg` reports a server that ends a connection. */
const lost = new OutboxStore.OutboxError({
  message: "Could not listen for appends",
  retryable: true,
  cause: new SqlError.SqlError({
    message: "Failed to execute statement",
    cause: Object.assign(new Error("terminating connection due to\nadministrator command"), {
      code: "57P01",
      length: 137
    })
  })
})

const lines = (format: LogFormat, level: LogLevel.LogLevel, log: Effect.Effect<void>) =>
  Effect.gen(function* () {
    const printed: Array<string> = []
    const console = yield* Effect.console
    yield* log.pipe(
      Effect.provide(Logger.add(Loggers.make(format, level))),
      Logger.withMinimumLogLevel(level),
      Effect.withConsole({ ...console, unsafe: { ...console.unsafe, error: (text: string) => printed.push(text) } })
    )
    return printed
  })

const reason =
  "Could not listen for appends: Failed to execute statement: terminating connection due to administrator command"

const logs: ReadonlyArray<readonly [string, Effect.Effect<void>]> = [
  ["an error in the message", Effect.logWarning("The pump polls", lost)],
  ["an error as the cause", Effect.logWarning("The pump polls", Cause.fail(lost))],
  ["a defect", Effect.logWarning("The pump polls", Cause.die(lost))]
]

describe("The log", () => {
  for (const format of ["json", "logfmt", "pretty"] as const) {
    it.effect(`in ${format} has one line an entry, and of an error its message and code`, () =>
      Effect.gen(function* () {
        for (const [name, log] of logs) {
          const [line = "", ...rest] = yield* lines(format, LogLevel.Info, log)
          assert.deepStrictEqual(rest, [])
          assert.notMatch(line, /\n|OutboxError|length|at .*:\d+:\d+/, name)
          assert.include(line, "57P01", name)
          assert.include(line, reason, name)
          if (format === "json") {
            const entry = JSON.parse(line) as Record<string, unknown>
            assert.deepInclude(entry, { message: "The pump polls", reason, code: "57P01", logLevel: "WARN" })
            assert.notProperty(entry, "cause")
          }
        }
      })
    )

    it.effect(`in ${format} has the stack at debug`, () =>
      Effect.gen(function* () {
        const [line = ""] = yield* lines(format, LogLevel.Debug, Effect.logWarning("x", Cause.fail(lost)))
        assert.match(line, /Loggers\.test\.ts:\d+:\d+/)
        assert.strictEqual(line.includes("\n"), format === "pretty")
      })
    )

    it.effect(`in ${format} shows no control characters of others, and says a thing once`, () =>
      Effect.gen(function* () {
        const unavailable = new Sink.SinkUnavailable({
          sink: "jetstream",
          reason: "unreachable",
          message: "the broker\u001b[31m is gone"
        })
        const log = Effect.annotateLogs(Effect.logError(unavailable, "again"), { key: "a\u202eb c" })
        const [line = ""] = yield* lines(format, LogLevel.Info, log)
        assert.notMatch(line, /\u001b|\u202e/)
        assert.strictEqual(line.split("is gone").length, 2)
      })
    )
  }

  it.effect("in JSON has text as its message, whatever was logged", () =>
    Effect.gen(function* () {
      for (const parts of [["a", { b: 1 }], [{ b: 1 }], [lost], [undefined], [1n], ["a\nb", "c"]]) {
        const [line = ""] = yield* lines("json", LogLevel.Info, Effect.logInfo(...parts))
        assert.isString((JSON.parse(line) as { message: unknown }).message, line)
      }
    })
  )
})
