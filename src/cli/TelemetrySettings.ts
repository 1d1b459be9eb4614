/**
 * The variables of OpenTelemetry that decide whether its SDK is loaded, and those whose unknown values the SDK would
 * silently replace by a default. The SDK reads all others itself.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { quote } from "../internal/printable.js"
import * as Setting from "../Setting.js"

/**
 * What is exported over OTLP. The environment and OpenTelemetry's SDK decide where to and how.
 *
 * @since 0.1.0
 * @category models
 */
export interface Telemetry {
  readonly traces: boolean
  readonly metrics: boolean
  readonly metricsInterval: Duration.Duration
}

const parseEndpoint: Setting.Parse<true> = (text) =>
  URL.canParse(text) && /^https?:/.test(text)
    ? Either.right(true)
    : Either.left(`got ${quote(text)}, valid is e.g. "http://127.0.0.1:4318"`)

const parseMilliseconds: Setting.Parse<Duration.Duration> = (text) => {
  const millis = Setting.parseInteger(text)
  return millis === undefined || millis === 0
    ? Either.left(`got ${quote(text)}, valid is a number of milliseconds`)
    : Either.right(Duration.millis(millis))
}

const disabled = Setting.make({
  env: "OTEL_SDK_DISABLED",
  description: "Whether nothing is exported, true or false",
  default: "false" as const,
  parse: Setting.oneOf("true", "false")
})

const endpoint = Setting.make({
  env: "OTEL_EXPORTER_OTLP_ENDPOINT",
  description: "Where spans and metrics are exported to",
  parse: parseEndpoint
})

const tracesEndpoint = Setting.make({
  env: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
  description: "Where spans are exported to",
  defaultText: endpoint.env,
  parse: parseEndpoint
})

const metricsEndpoint = Setting.make({
  env: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
  description: "Where metrics are exported to",
  defaultText: endpoint.env,
  parse: parseEndpoint
})

const exporter = (env: string, description: string) =>
  Setting.make({
    env,
    description,
    defaultText: "otlp where an endpoint is set",
    parse: Setting.oneOf("otlp", "none")
  })

const tracesExporter = exporter("OTEL_TRACES_EXPORTER", "Whether spans are exported, otlp or none")

const metricsExporter = exporter("OTEL_METRICS_EXPORTER", "Whether metrics are exported, otlp or none")

const metricsInterval = Setting.make({
  env: "OTEL_METRIC_EXPORT_INTERVAL",
  description: "How often metrics are exported, in milliseconds",
  defaultText: "60000",
  default: Duration.minutes(1),
  parse: parseMilliseconds
})

const protocol = Setting.make({
  env: "OTEL_EXPORTER_OTLP_PROTOCOL",
  description: "The protocol of the export; http/protobuf is the only one",
  defaultText: "http/protobuf",
  parse: Setting.oneOf("http/protobuf")
})

const sampler = Setting.make({
  env: "OTEL_TRACES_SAMPLER",
  description: "Which traces are exported",
  defaultText: "parentbased_always_on",
  parse: Setting.oneOf(
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio"
  )
})

/**
 * The settings of traces and metrics.
 *
 * @since 0.1.0
 * @category declarations
 */
export const group: Setting.Group = {
  title: "OpenTelemetry",
  settings: [
    endpoint,
    tracesEndpoint,
    metricsEndpoint,
    tracesExporter,
    metricsExporter,
    metricsInterval,
    protocol,
    sampler,
    disabled
  ]
}

/**
 * Reads what is exported.
 *
 * @since 0.1.0
 * @category reading
 */
export const telemetry: Effect.Effect<Telemetry, Setting.InvalidSetting> = Effect.gen(function* () {
  const enabled = (yield* Setting.read(disabled)) === "false"
  const toBoth = (yield* Setting.read(endpoint)) ?? false
  const toTraces = (yield* Setting.read(tracesEndpoint)) ?? toBoth
  const toMetrics = (yield* Setting.read(metricsEndpoint)) ?? toBoth
  const traces = (yield* Setting.read(tracesExporter)) ?? (toTraces ? "otlp" : "none")
  const metrics = (yield* Setting.read(metricsExporter)) ?? (toMetrics ? "otlp" : "none")
  const interval = yield* Setting.read(metricsInterval)
  // The SDK would silently replace an unknown value by its default.
  yield* Setting.read(protocol)
  yield* Setting.read(sampler)
  return { traces: enabled && traces === "otlp", metrics: enabled && metrics === "otlp", metricsInterval: interval }
})
