/**
 * What the settings of a feed limit: how far a node may fall behind, and when the feed takes nothing more.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * How far behind a node may be and still find the next event. What is absent is not limited.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Reach = Schema.Struct({
  /** The age of an event, in milliseconds. */
  millis: Schema.optionalWith(Schema.Number, { exact: true }),
  events: Schema.optionalWith(Schema.Number, { exact: true }),
  bytes: Schema.optionalWith(Schema.Number, { exact: true })
}).annotations({ identifier: "Reach" })

/**
 * How far behind a node may be, see the schema.
 *
 * @since 0.1.0
 * @category models
 */
export type Reach = typeof Reach.Type

/**
 * A setting of a feed that the feed can live with if its operator knows.
 *
 * @since 0.1.0
 * @category schemas
 */
export const FeedBound = Schema.Struct({
  /** One line: what is limited, with its figure, and what to do. */
  message: Schema.String,
  /** Absent if the setting does not limit how far a node may fall behind. */
  reach: Schema.optionalWith(Reach, { exact: true })
}).annotations({ identifier: "FeedBound" })

/**
 * A setting of a feed that its operator has to know, see the schema.
 *
 * @since 0.1.0
 * @category models
 */
export type FeedBound = typeof FeedBound.Type
