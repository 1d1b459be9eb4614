/**
 * What a pump is doing.
 *
 * @since 1.0.0
 */
import * as Schema from "effect/Schema"

/**
 * `inert`: the sink is `nop` · `publishing` · `idle`: nothing is publishable · `unavailable`: the sink or the database
 * is unavailable, and the pump backs off · `paused` · `stopping`: finishing the publishes in flight · `stopped`.
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
 * A pump's state and its counts since it started. Instants are in milliseconds since the epoch.
 *
 * @since 1.0.0
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
 * @since 1.0.0
 * @category models
 */
export type PumpStatus = typeof PumpStatus.Type
