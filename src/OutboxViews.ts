/**
 * What those who operate an outbox see of it: counts, lanes and events, as the port for operators answers them.
 *
 * @since 1.0.0
 */
import * as Schema from "effect/Schema"

/**
 * `pending`: to be published · `waiting`: pending, and waits for its retry · `parked`: it failed for good, or was parked by
 * hand · `published`.
 *
 * @since 1.0.0
 * @category schemas
 */
export const EventState = Schema.Literal("pending", "waiting", "parked", "published").annotations({
  identifier: "EventState"
})

/**
 * @since 1.0.0
 * @category models
 */
export type EventState = typeof EventState.Type

/**
 * Everything that is given has to hold. `pending` includes the events that wait.
 *
 * @since 1.0.0
 * @category schemas
 */
export const EventFilter = Schema.Struct({
  eventId: Schema.optional(Schema.NonEmptyString),
  type: Schema.optional(Schema.NonEmptyString),
  tenantId: Schema.optional(Schema.NonEmptyString),
  /** May be empty: that is the key of events of no tenant. */
  orderingKey: Schema.optional(Schema.String),
  state: Schema.optional(EventState),
  /** Created at this instant or later. */
  since: Schema.optional(Schema.Number),
  /** Created before this instant. */
  until: Schema.optional(Schema.Number)
}).annotations({ identifier: "EventFilter" })

/**
 * @since 1.0.0
 * @category models
 */
export type EventFilter = typeof EventFilter.Type

/**
 * Which outbox it is: equal for all who reach the same one, whatever URL they use.
 *
 * @since 1.0.0
 * @category schemas
 */
export const OutboxIdentity = Schema.Struct({
  /** The database server: the system identifier of its cluster. */
  server: Schema.String,
  /** The name of the database. */
  database: Schema.String,
  schema: Schema.String
}).annotations({ identifier: "OutboxIdentity" })

/**
 * @since 1.0.0
 * @category models
 */
export type OutboxIdentity = typeof OutboxIdentity.Type

/**
 * A count that stopped at a limit is a lower bound.
 *
 * @since 1.0.0
 * @category schemas
 */
export const Count = Schema.Struct({ value: Schema.Number, exact: Schema.Boolean }).annotations({ identifier: "Count" })

/** The names of the fields that are longer than an outbox takes, of which only the beginning is answered. */
const Cut = Schema.optional(Schema.Array(Schema.String))

/**
 * @since 1.0.0
 * @category schemas
 */
export const Overview = Schema.Struct({
  /** Rows that are neither published nor parked, the waiting ones included. */
  pending: Count,
  /** Pending rows that wait for a retry. */
  waiting: Count,
  parked: Count,
  /** When the oldest of the first pending rows of each lane was created. */
  oldestPendingAt: Schema.optional(Schema.Number),
  /** Ids that the database has drawn for rows so far: its growth is the rate of appends, those rolled back included. */
  drawn: Schema.Number,
  /** The lanes with pending or parked rows, each with what is at its head. */
  lanes: Schema.Array(
    Schema.Struct({
      lane: Schema.Number,
      pending: Count,
      parked: Count,
      head: Schema.optional(
        Schema.Struct({
          eventId: Schema.String,
          type: Schema.String,
          orderingKey: Schema.String,
          createdAt: Schema.Number,
          attemptCount: Schema.Number,
          nextAttemptAt: Schema.optional(Schema.Number),
          lastError: Schema.optional(Schema.String),
          cut: Cut
        })
      )
    })
  )
}).annotations({ identifier: "Overview" })

/**
 * @since 1.0.0
 * @category models
 */
export type Overview = typeof Overview.Type

/**
 * An event without its payload.
 *
 * @since 1.0.0
 * @category schemas
 */
export const EventSummary = Schema.Struct({
  eventId: Schema.String,
  type: Schema.String,
  tenantId: Schema.optional(Schema.String),
  stackId: Schema.optional(Schema.String),
  orderingKey: Schema.String,
  lane: Schema.Number,
  state: EventState,
  createdAt: Schema.Number,
  attemptCount: Schema.Number,
  lastError: Schema.optional(Schema.String),
  lastAttemptAt: Schema.optional(Schema.Number),
  nextAttemptAt: Schema.optional(Schema.Number),
  parkedAt: Schema.optional(Schema.Number),
  controlVersion: Schema.optional(Schema.Number),
  publishedAt: Schema.optional(Schema.Number),
  cut: Cut
}).annotations({ identifier: "EventSummary" })

/**
 * @since 1.0.0
 * @category models
 */
export type EventSummary = typeof EventSummary.Type

/**
 * An attempt that the sink answered for the event alone, and that failed.
 *
 * @since 1.0.0
 * @category schemas
 */
export const FailedAttempt = Schema.Struct({
  at: Schema.Number,
  error: Schema.String,
  /** When it is tried again; absent where it was parked. */
  nextAttemptAt: Schema.optional(Schema.Number)
}).annotations({ identifier: "FailedAttempt" })

/**
 * @since 1.0.0
 * @category models
 */
export type FailedAttempt = typeof FailedAttempt.Type

/**
 * An event as a whole.
 *
 * @since 1.0.0
 * @category schemas
 */
export const EventDetail = Schema.Struct({
  ...EventSummary.fields,
  /** The exact text that the feed carries. */
  payload: Schema.String,
  /** The size of the whole payload. */
  payloadBytes: Schema.Number,
  /** Whether `payload` is only the beginning of a large one. */
  payloadCut: Schema.optional(Schema.Literal(true)),
  /** The bytes of a payload beyond the outbox's limit, which is not read: `payload` is empty. */
  payloadOmitted: Schema.optional(Schema.Number),
  traceparent: Schema.optional(Schema.String),
  /** The last of them, newest first. */
  failedAttempts: Schema.Array(FailedAttempt)
}).annotations({ identifier: "EventDetail" })

/**
 * @since 1.0.0
 * @category models
 */
export type EventDetail = typeof EventDetail.Type

/**
 * What was erased, and where the payload may still be.
 *
 * @since 1.0.0
 * @category schemas
 */
export const Erased = Schema.Struct({
  eventId: Schema.String,
  /** The version under which the feed has it; absent for an event that was discarded and never published. */
  controlVersion: Schema.optional(Schema.Number),
  /** The artifact that the event named, which is not erased. */
  artifactRef: Schema.optional(Schema.String),
  /** What still holds the payload, or copies of it, a sentence each. */
  remains: Schema.Array(Schema.String)
}).annotations({ identifier: "Erased" })

/**
 * @since 1.0.0
 * @category models
 */
export type Erased = typeof Erased.Type

/**
 * @since 1.0.0
 * @category schemas
 */
export const EventPage = Schema.Struct({
  events: Schema.Array(EventSummary),
  /** Where the next page begins; absent at the end. */
  next: Schema.optional(Schema.String)
}).annotations({ identifier: "EventPage" })

/**
 * @since 1.0.0
 * @category models
 */
export type EventPage = typeof EventPage.Type
