/**
 * Spans and metrics over OTLP, as the standard variables of OpenTelemetry say. Off unless one of them asks for it, and
 * then nothing of it is loaded.
 *
 * @since 1.0.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Setting from "../Setting.js"
import * as TelemetrySettings from "./TelemetrySettings.js"

/**
 * Exports the spans of what it is provided to, and the metrics of the process. Its end exports what is left, for at most
 * three seconds.
 *
 * @since 1.0.0
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
