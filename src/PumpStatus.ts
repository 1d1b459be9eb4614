/**
 * What a pump is doing.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { FeedBound } from "./FeedBound.js"

/**
 * `inert`: the sink is `nop` · `publishing` · `idle`: nothing is publishable · `unavailable`: the sink or the database
 * is unavailable, and the pump backs off · `paused` · `stopping`: finishing the publishes in flight · `stopped`.
 *
 * @since 0.1.0
 * @category schemas
 */
export const PumpState = Schema.Literal("inert", "publishing", "idle", "unavailable", "paused", "stopping", "stopped")

/**
 * The state of a pump.
 *
 * @since 0.1.0
 * @category models
 */
export type PumpState = typeof PumpState.Type

/**
 * A pump's state and its counts since it started. Instants are in milliseconds since the epoch.
 *
 * @since 0.1.0
 * @category schemas
 */
export const PumpStatus = Schema.Struct({
  state: PumpState,
  /** When the pump entered this state. */
  since: Schema.Number,
  /** The name of the sink. */
  sink: Schema.String,
  /** Batches that were written back. */
  batches: Schema.Number,
  published: Schema.Number,
  /** Attempts that failed for one event alone. */
  failed: Schema.Number,
  parked: Schema.Number,
  /** Passes that failed as a whole. */
  failures: Schema.Number,
  lastPublishedAt: Schema.optionalWith(Schema.Number, { exact: true }),
  /** The error of the last failed pass. */
  lastError: Schema.optionalWith(
    Schema.Struct({
      at: Schema.Number,
      /** What was unavailable or broke its contract. */
      of: Schema.Literal("sink", "database", "pump"),
      message: Schema.String
    }),
    { exact: true }
  )
}).annotations({ identifier: "PumpStatus" })

/**
 * A pump's state and its counts since it started.
 *
 * @since 0.1.0
 * @category models
 */
export type PumpStatus = typeof PumpStatus.Type

/**
 * What a pump says of itself to those who look at the outbox, wherever it runs.
 *
 * @since 0.1.0
 * @category schemas
 */
export const PumpReport = Schema.Struct({
  /** Of this start of the pump. */
  id: Schema.String,
  host: Schema.String,
  pid: Schema.Number,
  version: Schema.String,
  startedAt: Schema.Number,
  state: PumpState,
  /** Since when it is in this state. */
  since: Schema.Number,
  /** The name of the sink. */
  sink: Schema.String,
  /** Events since it started. */
  published: Schema.Number,
  /** Events a second, over ten seconds or more; absent at first. */
  rate: Schema.optionalWith(Schema.Number, { exact: true }),
  lastPublishedAt: Schema.optionalWith(Schema.Number, { exact: true }),
  /** What the settings of its feed limit. Absent if its sink does not tell. */
  bounds: Schema.optionalWith(Schema.Array(FeedBound), { exact: true }),
  /** What keeps it from publishing. */
  trouble: Schema.optionalWith(
    Schema.Struct({
      of: Schema.Literal("sink", "database", "pump"),
      message: Schema.String,
      since: Schema.Number
    }),
    { exact: true }
  )
}).annotations({ identifier: "PumpReport" })

/**
 * A pump's last report about itself.
 *
 * @since 0.1.0
 * @category models
 */
export type PumpReport = typeof PumpReport.Type

/**
 * A pump of the outbox as it said last.
 *
 * @since 0.1.0
 * @category schemas
 */
export const AttendedPump = Schema.Struct({
  ...PumpReport.fields,
  /** When it said so, by the clock of the database. */
  seenAt: Schema.Number,
  /** It has said nothing for 30 seconds: it was killed, hangs, or cannot reach the database. */
  lost: Schema.Boolean
}).annotations({ identifier: "AttendedPump" })

/**
 * A pump of the outbox with its last report.
 *
 * @since 0.1.0
 * @category models
 */
export type AttendedPump = typeof AttendedPump.Type
