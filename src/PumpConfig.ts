/**
 * The settings of a pump.
 *
 * @since 0.1.0
 */
import * as ConfigError from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import type { AfterParked } from "./OutboxStore.js"
import { layerConfig as makeLayerConfig, type LayerConfig } from "./internal/layerConfig.js"

/**
 * The settings of a pump. Provide them with {@link layer} or {@link layerDefaults}.
 *
 * @since 0.1.0
 * @category models
 */
export class PumpConfig extends Context.Tag("controlpublish/PumpConfig")<
  PumpConfig,
  {
    /** Most events in one batch. Default 500. */
    readonly batchSize: number
    /** Most bytes of payloads in one batch, so that large payloads do not exhaust memory. Default 4 MiB. */
    readonly batchBytes: number
    /** How many batches are in flight at a time, each on a connection of its own. Default 4. */
    readonly concurrency: number
    /** How often an idle pump looks for rows without a wake-up. Default 1 second. */
    readonly pollPeriod: Duration.DurationInput
    /**
     * How long one publish may take, counted from its claim, before the sink counts as unavailable. The sink must send
     * nothing after three quarters of it, so that a slow sink can still answer. It is also roughly how long a frozen
     * pump keeps a lane. Default 10 seconds.
     */
    readonly publishTimeout: Duration.DurationInput
    /** How long a stop waits for publishes in flight. Default 15 seconds. */
    readonly drainTimeout: Duration.DurationInput
    /** Whether later events of a key `pass` a parked event or `wait` for it. Default `pass`. */
    readonly afterParked: AfterParked
    /**
     * The back-off of the pump while the sink or the database is unavailable. When the schedule ends, the pump retries
     * every 30 seconds. Default {@link defaultRetry}.
     */
    readonly retry: Schedule.Schedule<unknown>
    /**
     * When an event that failed alone is retried, one step per attempt. When the schedule ends, the event is parked.
     * Default {@link defaultEventRetry}, which does not end.
     */
    readonly eventRetry: Schedule.Schedule<unknown>
  }
>() {}

/**
 * From 100 ms, doubled up to 10 s, jittered by a fifth each way.
 *
 * @since 0.1.0
 * @category schedules
 */
export const defaultRetry: Schedule.Schedule<unknown> = Schedule.exponential("100 millis").pipe(
  Schedule.union(Schedule.spaced("10 seconds")),
  Schedule.jittered
)

/**
 * From 1 s, doubled up to 1 minute, jittered by a fifth each way, without end.
 *
 * @since 0.1.0
 * @category schedules
 */
export const defaultEventRetry: Schedule.Schedule<unknown> = Schedule.exponential("1 second").pipe(
  Schedule.union(Schedule.spaced("1 minute")),
  Schedule.jittered
)

/**
 * The default settings.
 *
 * @since 0.1.0
 * @category defaults
 */
export const defaults: PumpConfig["Type"] = {
  batchSize: 500,
  batchBytes: 4 * 1024 * 1024,
  concurrency: 4,
  pollPeriod: Duration.seconds(1),
  publishTimeout: Duration.seconds(10),
  drainTimeout: Duration.seconds(15),
  afterParked: "pass",
  retry: defaultRetry,
  eventRetry: defaultEventRetry
}

/**
 * The largest valid values.
 *
 * @since 0.1.0
 * @category defaults
 */
export const largest = { batchSize: 10_000, batchBytes: 1024 * 1024 * 1024, concurrency: 64 }

const checkInteger = (config: PumpConfig["Type"], name: keyof typeof largest) =>
  Number.isInteger(config[name]) && config[name] >= 1 && config[name] <= largest[name]
    ? Effect.void
    : Effect.fail(
        ConfigError.InvalidData([name], `got ${config[name]}, valid is an integer from 1 to ${largest[name]}`)
      )

const checkDuration = (config: PumpConfig["Type"], name: "pollPeriod" | "publishTimeout" | "drainTimeout") => {
  const duration = Duration.decodeUnknown(config[name])
  return duration._tag === "Some" && Duration.toMillis(duration.value) >= 1 && Duration.isFinite(duration.value)
    ? Effect.void
    : Effect.fail(
        ConfigError.InvalidData([name], `got ${String(config[name])}, valid is a finite time of at least 1 millisecond`)
      )
}

/**
 * Returns the defaults with some settings replaced. Fails with a `ConfigError` that names a setting out of range.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  options: Partial<PumpConfig["Type"]> = {}
): Effect.Effect<PumpConfig["Type"], ConfigError.ConfigError> => {
  const config = { ...defaults, ...options }
  return Effect.as(
    Effect.all([
      checkInteger(config, "batchSize"),
      checkInteger(config, "batchBytes"),
      checkInteger(config, "concurrency"),
      checkDuration(config, "pollPeriod"),
      checkDuration(config, "publishTimeout"),
      checkDuration(config, "drainTimeout")
    ]),
    config
  )
}

/**
 * Provides the defaults with some settings replaced. Fails with a `ConfigError` that names a setting out of range.
 *
 * @example
 * import { PumpConfig } from "controlpublish"
 *
 * export const Config = PumpConfig.layer({ batchSize: 100, drainTimeout: "30 seconds", afterParked: "wait" })
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: Partial<PumpConfig["Type"]> = {}): Layer.Layer<PumpConfig, ConfigError.ConfigError> =>
  Layer.effect(PumpConfig, make(options))

/**
 * Provides the same as {@link layer}, its options read from `Config`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig: LayerConfig<Partial<PumpConfig["Type"]>, PumpConfig, never, never> = makeLayerConfig(layer)

/**
 * Provides the default settings.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerDefaults: Layer.Layer<PumpConfig> = Layer.succeed(PumpConfig, defaults)
