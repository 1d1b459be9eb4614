import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, LogLevel, Option, Redacted } from "effect"
import { PumpConfig } from "../../src/index.js"
import * as ServiceConfig from "../../src/service/ServiceConfig.js"

const given = (environment: Record<string, string>, flags: ServiceConfig.Flags = {}) => {
  const provider = ConfigProvider.fromMap(new Map(Object.entries(environment)))
  return <A, E>(setting: Effect.Effect<A, E>) =>
    setting.pipe(ServiceConfig.withFlags(flags), Effect.withConfigProvider(provider))
}

const messageOf = <A>(setting: Effect.Effect<A, ServiceConfig.InvalidSetting>, environment: Record<string, string>) =>
  Effect.map(Effect.flip(given(environment)(setting)), ({ message }) => message)

const millis = ({ drainTimeout, pollPeriod, publishTimeout }: ServiceConfig.Pump) =>
  [pollPeriod, publishTimeout, drainTimeout].map((duration) => Duration.toMillis(duration))

describe("ServiceConfig", () => {
  it.effect("has defaults, those of the pump being its own", () =>
    Effect.gen(function* () {
      const nothing = given({})
      assert.deepStrictEqual(yield* nothing(ServiceConfig.database), { url: undefined, schema: "public" })
      assert.deepStrictEqual(yield* nothing(ServiceConfig.sink), { _tag: "nop" })
      assert.strictEqual(yield* nothing(ServiceConfig.logLevel), LogLevel.Info)
      const { batchSize, concurrency, drainTimeout, pollPeriod, publishTimeout } = PumpConfig.defaults
      assert.deepStrictEqual(yield* nothing(ServiceConfig.pump), {
        batchSize,
        concurrency,
        pollPeriod,
        publishTimeout,
        drainTimeout
      })
      assert.deepStrictEqual(yield* given({ FEED_SINK: "file" })(ServiceConfig.sink), {
        _tag: "file",
        directory: "feed"
      })
    })
  )

  it.effect("reads the environment", () =>
    Effect.gen(function* () {
      const environment = given({
        DATABASE_URL: "postgres://u:p%23@h:5433/d?sslmode=disable",
        DATABASE_SCHEMA: "outbox",
        FEED_SINK: "file",
        FEED_SINK_FILE_DIR: "there",
        FEED_SINK_BATCH_SIZE: "7",
        FEED_POLL_PERIOD: "500ms",
        PUMP_CONCURRENCY: "64",
        PUMP_PUBLISH_TIMEOUT: "2 seconds",
        PUMP_DRAIN_TIMEOUT: "1.5 m",
        LOG_LEVEL: "Debug"
      })
      const { schema, url } = yield* environment(ServiceConfig.database)
      assert.strictEqual(Redacted.value(url!), "postgres://u:p%23@h:5433/d?sslmode=disable")
      assert.strictEqual(schema, "outbox")
      assert.deepStrictEqual(yield* environment(ServiceConfig.sink), { _tag: "file", directory: "there" })
      const pump = yield* environment(ServiceConfig.pump)
      assert.strictEqual(pump.batchSize, 7)
      assert.strictEqual(pump.concurrency, 64)
      assert.deepStrictEqual(millis(pump), [500, 2_000, 90_000])
      assert.strictEqual(yield* environment(ServiceConfig.logLevel), LogLevel.Debug)
    })
  )

  it.effect("takes flags before the environment, and what is empty for not given", () =>
    Effect.gen(function* () {
      const environment = { DATABASE_SCHEMA: "a", FEED_SINK: "file", FEED_SINK_FILE_DIR: "", PUMP_CONCURRENCY: "" }
      const flags = {
        databaseUrl: Option.some(Redacted.make("postgres://h/d")),
        databaseSchema: Option.some("b"),
        sink: Option.some(""),
        batchSize: Option.none()
      }
      const both = given(environment, flags)
      const { schema, url } = yield* both(ServiceConfig.database)
      assert.strictEqual(schema, "b")
      assert.strictEqual(Redacted.value(url!), "postgres://h/d")
      assert.deepStrictEqual(yield* both(ServiceConfig.sink), { _tag: "file", directory: "feed" })
      assert.strictEqual((yield* both(ServiceConfig.pump)).concurrency, PumpConfig.defaults.concurrency)
    })
  )

  it.effect("reads durations with long and with short units", () =>
    Effect.gen(function* () {
      const times = {
        "10 seconds": 10_000,
        "1 minute": 60_000,
        "10s": 10_000,
        "500ms": 500,
        "2h": 7_200_000,
        "1.5s": 1_500
      }
      for (const [text, expected] of Object.entries(times)) {
        const pump = yield* given({ FEED_POLL_PERIOD: text })(ServiceConfig.pump)
        assert.strictEqual(millis(pump)[0], expected, text)
      }
      for (const text of ["10", "s", "-1s", "0s", "Infinity", "10 parsecs", "1e3s", "0.1ms"]) {
        assert.strictEqual(
          yield* messageOf(ServiceConfig.pump, { FEED_POLL_PERIOD: text }),
          `FEED_POLL_PERIOD (--poll-period): got "${text}", valid is a finite time of at least 1 millisecond, e.g. "10 seconds" or "500ms"`
        )
      }
    })
  )

  it.effect("takes integers only as such, and in the range of the pump", () =>
    Effect.gen(function* () {
      for (const text of ["0", "65", "1.5", "1e1", "0x10", "-1", "four", "NaN"]) {
        assert.strictEqual(
          yield* messageOf(ServiceConfig.pump, { PUMP_CONCURRENCY: text }),
          `PUMP_CONCURRENCY (--concurrency): got "${text}", valid is an integer from 1 to 64`
        )
      }
    })
  )

  it.effect("accepts what the driver accepts as a URL", () =>
    Effect.gen(function* () {
      const urls = [
        "postgres://h",
        "postgresql://u:p@h/d",
        "postgres://u:p@[::1]:5432/d",
        "postgres://u:p@/d?host=/var/run/postgresql",
        "postgres:///d",
        "postgres://u:p%40%2F@h/d"
      ]
      for (const url of urls) yield* given({ DATABASE_URL: url })(ServiceConfig.database)
    })
  )

  it.effect("never repeats a URL that it refuses", () =>
    Effect.gen(function* () {
      const urls = [
        "s3cret",
        "mysql://u:s3cret@h/d",
        "postgres://u:s3cret/x@h/d",
        "postgres://u:12/s3cret@h/d",
        "postgres://u:12#s3cret@h/d",
        "postgres://u:12?s3cret@h/d",
        "postgres://u:p@s3cret/x@h/d",
        "postgres://u:p@s3cret#x@h/d",
        "postgres://u:p@s3cret?x@h/d",
        "postgres://u:p@s3cret#x",
        "postgres://u:s3cret@h:port/d",
        "postgres://u:s3cret@h/d?sslrootcert=/nowhere"
      ]
      for (const url of urls) {
        const message = yield* messageOf(ServiceConfig.database, { DATABASE_URL: url })
        assert.match(message, /^DATABASE_URL \(--database-url\): (got|cannot be used)/, url)
        assert.notInclude(message, "s3cret")
      }
    })
  )

  it.effect("shows what was given in one line, without the password of a URL that got to the wrong place", () =>
    Effect.gen(function* () {
      const message = yield* messageOf(ServiceConfig.sink, {
        FEED_SINK: `postgres://u:s3/cret@h/d\n\u001b[31m${"x".repeat(500)}`
      })
      assert.match(message, /^FEED_SINK \(--sink\): got "postgres:\/\/\*\*\*@h\/d �\[31mx+…", valid is nop, file/)
      assert.isBelow(message.length, 250)
      const schema = yield* messageOf(ServiceConfig.schema, { DATABASE_SCHEMA: "ä".repeat(32) })
      assert.match(schema, /^DATABASE_SCHEMA \(--database-schema\): got "ä+", valid is a name of at most 63 bytes$/)
    })
  )
})
