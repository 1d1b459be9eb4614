/**
 * Spans and metrics over OTLP, configured by OpenTelemetry's standard variables. If none of them asks for an export,
 * nothing is loaded.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Setting from "../Setting.js"
import * as TelemetrySettings from "./TelemetrySettings.js"

/**
 * Exports the spans of the effects it is provided to, and the metrics of the process. When the scope closes, it exports
 * the rest for at most three seconds.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<never, Setting.InvalidSetting> = Layer.unwrapEffect(
  Effect.flatMap(TelemetrySettings.telemetry, (settings) =>
    settings.traces || settings.metrics
      ? Effect.map(
          Effect.promise(() => import("./internal/openTelemetry.js")),
          (openTelemetry) => openTelemetry.layer(settings)
        )
      : Effect.succeed(Layer.empty)
  )
)
