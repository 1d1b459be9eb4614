/**
 * The settings of a pump and of the retention.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { quote } from "./internal/printable.js"
import * as PumpConfig from "./PumpConfig.js"
import * as Retention from "./Retention.js"
import * as Setting from "./Setting.js"

/**
 * The part of `PumpConfig` that settings provide.
 *
 * @since 0.1.0
 * @category models
 */
export type Pump = Pick<
  PumpConfig.PumpConfig["Type"],
  "batchSize" | "concurrency" | "pollPeriod" | "publishTimeout" | "drainTimeout"
>

const { defaults } = PumpConfig

const batchSize = Setting.make({
  env: "FEED_SINK_BATCH_SIZE",
  flag: "batch-size",
  description: "Most events in one publish",
  default: defaults.batchSize,
  parse: Setting.integer({ min: 1, max: PumpConfig.largest.batchSize })
})

const pollPeriod = Setting.make({
  env: "FEED_POLL_PERIOD",
  flag: "poll-period",
  description: "How often an idle pump looks for events that no notification announced",
  default: defaults.pollPeriod,
  parse: Setting.duration
})

const concurrency = Setting.make({
  env: "PUMP_CONCURRENCY",
  flag: "concurrency",
  description: "How many batches are in flight at a time, each on a connection of its own",
  default: defaults.concurrency,
  parse: Setting.integer({ min: 1, max: PumpConfig.largest.concurrency })
})

const publishTimeout = Setting.make({
  env: "PUMP_PUBLISH_TIMEOUT",
  flag: "publish-timeout",
  description: "How long one publish may take before the sink counts as unavailable",
  default: defaults.publishTimeout,
  parse: Setting.duration
})

const drainTimeout = Setting.make({
  env: "PUMP_DRAIN_TIMEOUT",
  flag: "drain-timeout",
  description: "How long a stop waits for publishes in flight",
  default: defaults.drainTimeout,
  parse: Setting.duration
})

const parseKeep: Setting.Parse<Retention.Keep> = (text) => {
  if (text.trim().toLowerCase() === "off") return Either.right("all")
  const [, count] = /^(\d+) *events?$/.exec(text.trim()) ?? []
  if (count !== undefined && Number(count) >= 1 && Number.isSafeInteger(Number(count))) {
    return Either.right({ _tag: "Count", count: Number(count) })
  }
  const age = Setting.parseDuration(text)
  return age !== undefined && Duration.toMillis(age) >= 1 && Duration.isFinite(age)
    ? Either.right({ _tag: "Age", age })
    : Either.left(`got ${quote(text)}, valid is a time ("7 days", 12h), a number of events ("1000000 events"), or off`)
}

const keep = Setting.make({
  env: "RETENTION",
  flag: "retention",
  description:
    'Which published events are kept: the last "7 days", the newest "1000000 events", or all of them with off',
  defaultText: "7 days",
  default: Retention.defaultKeep,
  parse: parseKeep
})

/**
 * The settings of the pump.
 *
 * @since 0.1.0
 * @category declarations
 */
export const group: Setting.Group = {
  title: "Pump",
  settings: [batchSize, pollPeriod, concurrency, publishTimeout, drainTimeout]
}

/**
 * The settings of the retention.
 *
 * @since 0.1.0
 * @category declarations
 */
export const retentionGroup: Setting.Group = { title: "Retention", settings: [keep] }

/**
 * Reads the settings of the pump.
 *
 * @since 0.1.0
 * @category reading
 */
export const pump: Effect.Effect<Pump, Setting.InvalidSetting> = Effect.all({
  batchSize: Setting.read(batchSize),
  concurrency: Setting.read(concurrency),
  pollPeriod: Setting.read(pollPeriod),
  publishTimeout: Setting.read(publishTimeout),
  drainTimeout: Setting.read(drainTimeout)
})

/**
 * Reads which published events are kept.
 *
 * @since 0.1.0
 * @category reading
 */
export const retention: Effect.Effect<Retention.Keep, Setting.InvalidSetting> = Setting.read(keep)
