import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { PumpConfig, PumpSettings } from "../src/index.js"
import { given, messageOf } from "./support/settings.js"

const millis = ({ drainTimeout, pollPeriod, publishTimeout }: PumpSettings.Pump) =>
  [pollPeriod, publishTimeout, drainTimeout].map((duration) => Duration.toMillis(duration))

describe("PumpSettings", () => {
  it.effect("has the defaults of the pump", () =>
    Effect.gen(function* () {
      const { batchSize, concurrency, drainTimeout, pollPeriod, publishTimeout } = PumpConfig.defaults
      for (const environment of [{}, { PUMP_CONCURRENCY: "" }]) {
        assert.deepStrictEqual(yield* given(environment)(PumpSettings.pump), {
          batchSize,
          concurrency,
          pollPeriod,
          publishTimeout,
          drainTimeout
        })
      }
    })
  )

  it.effect("reads the environment", () =>
    Effect.gen(function* () {
      const pump = yield* given({
        FEED_SINK_BATCH_SIZE: "7",
        FEED_POLL_PERIOD: "500ms",
        PUMP_CONCURRENCY: "64",
        PUMP_PUBLISH_TIMEOUT: "2 seconds",
        PUMP_DRAIN_TIMEOUT: "1.5 m"
      })(PumpSettings.pump)
      assert.strictEqual(pump.batchSize, 7)
      assert.strictEqual(pump.concurrency, 64)
      assert.deepStrictEqual(millis(pump), [500, 2_000, 90_000])
    })
  )

  it.effect("accepts whatever PumpConfig accepts, and nothing else", () =>
    Effect.gen(function* () {
      for (const [env, name, values] of [
        ["FEED_SINK_BATCH_SIZE", "batchSize", [0, 1, 10_000, 10_001]],
        ["PUMP_CONCURRENCY", "concurrency", [0, 1, 64, 65]]
      ] as const) {
        for (const value of values) {
          const bySetting = yield* Effect.exit(given({ [env]: String(value) })(PumpSettings.pump))
          const byConfig = yield* Effect.exit(PumpConfig.make({ [name]: value }))
          assert.strictEqual(bySetting._tag, byConfig._tag, `${name} ${value}`)
        }
      }
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
        const pump = yield* given({ FEED_POLL_PERIOD: text })(PumpSettings.pump)
        assert.strictEqual(millis(pump)[0], expected, text)
      }
      for (const text of ["10", "s", "-1s", "0s", "Infinity", "10 parsecs", "1e3s", "0.1ms"]) {
        assert.strictEqual(
          yield* messageOf(PumpSettings.pump, { FEED_POLL_PERIOD: text }),
          `FEED_POLL_PERIOD (--poll-period): got "${text}", valid is a finite time of at least 1 millisecond, e.g. "10 seconds" or "500ms"`
        )
      }
    })
  )

  it.effect("accepts only integers in the range of the pump", () =>
    Effect.gen(function* () {
      for (const text of ["0", "65", "1.5", "1e1", "0x10", "-1", "four", "NaN"]) {
        assert.strictEqual(
          yield* messageOf(PumpSettings.pump, { PUMP_CONCURRENCY: text }),
          `PUMP_CONCURRENCY (--concurrency): got "${text}", valid is an integer from 1 to 64`
        )
      }
    })
  )

  it.effect("keeps published events for 7 days, another time, a number of them, or all", () =>
    Effect.gen(function* () {
      for (const [text, keep] of [
        ["", { _tag: "Age", age: Duration.days(7) }],
        ["36h", { _tag: "Age", age: Duration.hours(36) }],
        ["2 weeks", { _tag: "Age", age: Duration.weeks(2) }],
        ["1000000 events", { _tag: "Count", count: 1_000_000 }],
        ["1 event", { _tag: "Count", count: 1 }],
        ["off", "all"]
      ] as const) {
        assert.deepStrictEqual(yield* given({ RETENTION: text })(PumpSettings.retention), keep, text)
      }
      for (const text of ["7", "0 events", "-1 events", "0 days", "never", "Infinity", "1e3 events"]) {
        assert.strictEqual(
          yield* messageOf(PumpSettings.retention, { RETENTION: text }),
          `RETENTION (--retention): got "${text}", valid is a time ("7 days", 12h), a number of events ("1000000 events"), or off`
        )
      }
    })
  )
})
