/**
 * What a pump is doing.
 *
 * @since 1.0.0
 */
import * as Schema from "effect/Schema"

/**
 * `inert`: the sink is `nop`, there is nothing to do · `publishing`: at work · `idle`: nothing is publishable ·
 * `unavailable`: the sink or the database is, and the pump backs off · `paused` · `stopping`: finishing what is in
 * flight · `stopped`.
 *
 * @since 1.0.0
 * @category schemas
 */
export const PumpState = Schema.Literal("inert", "publishing", "idle", "unavailable", "paused", "stopping", "stopped")

/**
 * @since 1.0.0
 * @category models
 */
export type PumpState = typeof PumpState.Type

/**
 * A pump's state and what it has counted since it started. Instants are in milliseconds since the epoch.
 *
 * @since 1.0.0
 * @category schemas
 */
export const PumpStatus = Schema.Struct({
  state: PumpState,
  /** Since when it is in this state. */
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
  /** Why the last pass that failed did so. */
  lastError: Schema.optionalWith(
    Schema.Struct({
      at: Schema.Number,
      /** What was unavailable, or broke its contract. */
      of: Schema.Literal("sink", "database", "pump"),
      message: Schema.String
    }),
    { exact: true }
  )
}).annotations({ identifier: "PumpStatus" })

/**
 * @since 1.0.0
 * @category models
 */
export type PumpStatus = typeof PumpStatus.Type
