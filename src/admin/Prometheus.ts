/**
 * The metrics of the process in Prometheus's text format.
 *
 * @since 0.1.0
 */
import * as HttpApiBuilder from "@effect/platform/HttpApiBuilder"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import type { MetricProducer } from "@opentelemetry/sdk-metrics"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import { StatusBoard } from "./StatusBoard.js"
import { version } from "../internal/version.js"

// Loaded by the first scrape, so that services without one do not pay for it.
const loadSerializer = async () => {
  const [{ PrometheusSerializer }, { makeProducer }, Resource] = await Promise.all([
    import("@opentelemetry/exporter-prometheus"),
    import("@effect/opentelemetry/Metrics"),
    import("@effect/opentelemetry/Resource")
  ])
  const resource = Resource.layer({ serviceName: "controlpublish", serviceVersion: version })
  const producer = Effect.runSync(Effect.provide(makeProducer, resource))
  // Without timestamps, and without the library's name on each series.
  return { producer, serializer: new PrometheusSerializer(undefined, false, undefined, false, true) }
}

let loading: ReturnType<typeof loadSerializer> | undefined

/** Effect counts its fibers, without a word of description, and for nobody who operates an outbox. */
const isOfEffect = (name: string): boolean => name.startsWith("effect_fiber")

/** What the producer collects, without units: the names have them, and its `1` would be wrong for most. */
const collect = async (producer: MetricProducer) => {
  const { resourceMetrics } = await producer.collect()
  return {
    ...resourceMetrics,
    scopeMetrics: resourceMetrics.scopeMetrics.map(({ metrics, scope }) => ({
      scope,
      metrics: metrics
        .filter(({ descriptor }) => !isOfEffect(descriptor.name))
        .map((metric) => ({
          ...metric,
          descriptor: {
            ...metric.descriptor,
            description: metric.descriptor.description || "A metric of the application, which does not describe it",
            unit: ""
          }
        }))
    }))
  }
}

/**
 * Every metric of the process, in Prometheus's text format.
 *
 * @since 0.1.0
 * @category rendering
 */
export const render: Effect.Effect<string> = Effect.promise(async () => {
  const { producer, serializer } = await (loading ??= loadSerializer())
  return serializer.serialize(await collect(producer))
})

/**
 * `GET /metrics`. The database is asked nothing but what the status board asks it anyway.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<never, never, StatusBoard> = HttpApiBuilder.Router.use((router) =>
  Effect.gen(function* () {
    const { status } = yield* StatusBoard
    yield* router.get(
      "/metrics",
      Effect.map(Effect.zipRight(status, render), (text) =>
        HttpServerResponse.text(text, { contentType: "text/plain; version=0.0.4; charset=utf-8" })
      )
    )
  })
)
