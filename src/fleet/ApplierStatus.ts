/**
 * What an applier is doing.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { FeedBound } from "../FeedBound.js"

/**
 * `inert`: the source is `nop` · `applying` · `idle`: nothing to apply · `halted`: an event cannot be applied and is
 * retried · `unavailable`: the feed or the node's database is unavailable · `paused` · `stopping`: finishing the events
 * in flight · `stopped`.
 *
 * @since 0.1.0
 * @category schemas
 */
export const ApplierState = Schema.Literal(
  "inert",
  "applying",
  "idle",
  "halted",
  "unavailable",
  "paused",
  "stopping",
  "stopped"
)

/**
 * The state of an applier.
 *
 * @since 0.1.0
 * @category models
 */
export type ApplierState = typeof ApplierState.Type

/**
 * The number of events by result.
 *
 * @since 0.1.0
 * @category schemas
 */
export const ApplyReport = Schema.Struct({
  applied: Schema.Number,
  /** Deliveries of events that were applied before. */
  skipped: Schema.Number,
  setAside: Schema.Number
})

/**
 * The number of events by result.
 *
 * @since 0.1.0
 * @category models
 */
export type ApplyReport = typeof ApplyReport.Type

/**
 * An applier's state and its counts since it started. Instants are in milliseconds since the epoch.
 *
 * @since 0.1.0
 * @category schemas
 */
export const ApplierStatus = Schema.Struct({
  ...ApplyReport.fields,
  state: ApplierState,
  /** When the applier entered the state. */
  since: Schema.Number,
  /** The source's name. */
  source: Schema.String,
  /** The identity of the feed that the position belongs to. Absent until the applier has read its position. */
  feed: Schema.optionalWith(Schema.String, { exact: true }),
  /** The control version of the last event applied, 0 before the first. */
  position: Schema.Number,
  /** The newest version that is known to be in the feed. */
  newest: Schema.Number,
  /** What the settings of the feed limit. Absent until it is known, or if the source does not tell. */
  bounds: Schema.optionalWith(Schema.Array(FeedBound), { exact: true }),
  /** How much of what the feed keeps is unread, from 0 to 1: at 1 it removes events before this node reads them. */
  boundUsed: Schema.optionalWith(Schema.Number, { exact: true }),
  /** Passes that failed. */
  failures: Schema.Number,
  /** The error of the last failed pass. */
  lastError: Schema.optionalWith(
    Schema.Struct({
      at: Schema.Number,
      message: Schema.String,
      /** The event that could not be applied, if it was one. */
      version: Schema.optionalWith(Schema.Number, { exact: true })
    }),
    { exact: true }
  )
}).annotations({ identifier: "ApplierStatus" })

/**
 * An applier's state and its counts since it started.
 *
 * @since 0.1.0
 * @category models
 */
export type ApplierStatus = typeof ApplierStatus.Type
