/** Exports spans and metrics with OpenTelemetry's SDK. Loaded only if an export is configured. */
import * as Metrics from "@effect/opentelemetry/Metrics"
import * as NodeSdk from "@effect/opentelemetry/NodeSdk"
import * as Resource from "@effect/opentelemetry/Resource"
import * as Tracer from "@effect/opentelemetry/Tracer"
import { loggingErrorHandler, setGlobalErrorHandler } from "@opentelemetry/core"
import { OTLPMetricExporter } from "@opentelemetry/exporter-metrics-otlp-proto"
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto"
import {
  detectResources,
  envDetector,
  resourceFromAttributes,
  serviceInstanceIdDetector
} from "@opentelemetry/resources"
import { PeriodicExportingMetricReader } from "@opentelemetry/sdk-metrics"
import { BatchSpanProcessor } from "@opentelemetry/sdk-trace-base"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Runtime from "effect/Runtime"
import type * as TelemetrySettings from "../TelemetrySettings.js"
import { messageOf } from "./text.js"
import { version } from "../../internal/version.js"

/** How long a stop waits for the last export. */
const shutdownTimeout = Duration.seconds(3)

/** How often a failing export is logged. */
const quiet = Duration.toMillis("1 minute")

const resource = Layer.sync(Resource.Resource, () =>
  resourceFromAttributes({ "service.name": "controlpublish", "service.version": version }).merge(
    detectResources({ detectors: [serviceInstanceIdDetector, envDetector] })
  )
)

/** A failed export is one line in the log: the message alone, because the rest of the error contains the request. */
const errors = Layer.scopedDiscard(
  Effect.gen(function* () {
    const runFork = Runtime.runFork(yield* Effect.runtime())
    let saidAt = -Infinity
    const say = (error: unknown) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const level = now - saidAt < quiet ? Effect.logDebug : Effect.logWarning
        if (level === Effect.logWarning) saidAt = now
        yield* level(`Telemetry was not exported: ${messageOf(error)}`)
      }).pipe(Effect.annotateLogs({ package: "controlpublish", module: "Telemetry" }))
    yield* Effect.acquireRelease(
      Effect.sync(() => setGlobalErrorHandler((error) => void runFork(say(error)))),
      () => Effect.sync(() => setGlobalErrorHandler(loggingErrorHandler()))
    )
  })
)

const traces = Layer.suspend(() =>
  Layer.discard(Tracer.layer).pipe(
    Layer.provide(
      NodeSdk.layerTracerProvider(new BatchSpanProcessor(new OTLPTraceExporter()), {
        shutdownTimeout
      })
    )
  )
)

const metrics = (interval: Duration.Duration) =>
  Metrics.layer(
    () =>
      new PeriodicExportingMetricReader({
        exporter: new OTLPMetricExporter(),
        exportIntervalMillis: Duration.toMillis(interval)
      }),
    { shutdownTimeout }
  )

export const layer = (settings: TelemetrySettings.Telemetry): Layer.Layer<never> =>
  Layer.mergeAll(
    settings.traces ? traces : Layer.empty,
    settings.metrics ? metrics(settings.metricsInterval) : Layer.empty
  ).pipe(Layer.provide(resource), Layer.provideMerge(errors))
