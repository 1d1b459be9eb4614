import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as TelemetrySettings from "../../src/cli/TelemetrySettings.js"
import { given, messageOf } from "../support/settings.js"

describe("TelemetrySettings", () => {
  it.effect("exports telemetry only where a variable of OpenTelemetry asks for it", () =>
    Effect.gen(function* () {
      const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:4318" }
      for (const [environment, traces, metrics] of [
        [{}, false, false],
        [endpoint, true, true],
        [{ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "https://there/v1/traces" }, true, false],
        [{ OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: "https://there/v1/metrics" }, false, true],
        [{ OTEL_TRACES_EXPORTER: "otlp" }, true, false],
        [{ ...endpoint, OTEL_TRACES_EXPORTER: "none" }, false, true],
        [{ ...endpoint, OTEL_METRICS_EXPORTER: "none" }, true, false],
        [{ ...endpoint, OTEL_SDK_DISABLED: "true" }, false, false]
      ] as const) {
        const found = yield* given(environment)(TelemetrySettings.telemetry)
        assert.deepStrictEqual([found.traces, found.metrics], [traces, metrics], JSON.stringify(environment))
      }
    })
  )

  it.effect("refuses of OpenTelemetry's variables what its SDK would replace without a word", () =>
    Effect.gen(function* () {
      for (const [name, value] of [
        ["OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"],
        ["OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"],
        ["OTEL_TRACES_SAMPLER", "sometimes"],
        ["OTEL_METRICS_EXPORTER", "prometheus"],
        ["OTEL_METRIC_EXPORT_INTERVAL", "1s"],
        ["OTEL_SDK_DISABLED", "perhaps"]
      ] as const) {
        const message = yield* messageOf(TelemetrySettings.telemetry, { [name]: value })
        assert.match(message, new RegExp(`^${name}: got "${value}", valid is `))
      }
    })
  )
})
