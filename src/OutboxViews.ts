/**
 * What operators see of an outbox: counts, lanes and events, as `OutboxAdmin` returns them.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * `pending`: to be published · `waiting`: pending, and waits for its retry · `parked`: failed for good, or parked by an
 * operator · `published`.
 *
 * @since 0.1.0
 * @category schemas
 */
export const EventState = Schema.Literal("pending", "waiting", "parked", "published").annotations({
  identifier: "EventState"
})

/**
 * The state of an event in the outbox.
 *
 * @since 0.1.0
 * @category models
 */
export type EventState = typeof EventState.Type

/**
 * All given fields must match. `pending` includes the events that wait.
 *
 * @since 0.1.0
 * @category schemas
 */
export const EventFilter = Schema.Struct({
  eventId: Schema.optional(Schema.NonEmptyString),
  type: Schema.optional(Schema.NonEmptyString),
  tenantId: Schema.optional(Schema.NonEmptyString),
  /** May be empty: the key of events without a tenant. */
  orderingKey: Schema.optional(Schema.String),
  state: Schema.optional(EventState),
  /** Created at this instant or later. */
  since: Schema.optional(Schema.Number),
  /** Created before this instant. */
  until: Schema.optional(Schema.Number)
}).annotations({ identifier: "EventFilter" })

/**
 * Selects events. All given fields must match.
 *
 * @since 0.1.0
 * @category models
 */
export type EventFilter = typeof EventFilter.Type

/**
 * The identity of an outbox: equal for all who reach the same one, whatever URL they use.
 *
 * @since 0.1.0
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
 * The server, database and schema of an outbox.
 *
 * @since 0.1.0
 * @category models
 */
export type OutboxIdentity = typeof OutboxIdentity.Type

/**
 * A count. It is a lower bound if it stopped at a limit.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Count = Schema.Struct({ value: Schema.Number, exact: Schema.Boolean }).annotations({ identifier: "Count" })

/** The names of fields that exceed the outbox's bounds; only their beginning is returned. */
const Cut = Schema.optional(Schema.Array(Schema.String))

/**
 * A session of the database that holds locks of the outbox and is no part of it. Pumps pass over the lanes that it
 * holds, and appends wait for the ordering keys.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Stranger = Schema.Struct({
  pid: Schema.Number,
  user: Schema.String,
  application: Schema.String,
  /** When its transaction began, or its last statement; absent where the service's role may not see it. */
  since: Schema.optional(Schema.Number),
  lanes: Schema.Array(Schema.Number),
  /** How many of the 4,096 groups that ordering keys are hashed to. */
  keys: Schema.Number
}).annotations({ identifier: "Stranger" })

/**
 * A foreign session that holds locks of the outbox.
 *
 * @since 0.1.0
 * @category models
 */
export type Stranger = typeof Stranger.Type

/**
 * The backlog of an outbox, in total and by lane. Instants are in milliseconds since the epoch.
 *
 * @since 0.1.0
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
  /** Ids that the database has drawn so far. Its growth is the rate of appends, rolled-back ones included. */
  drawn: Schema.Number,
  /** Absent where there is none. */
  strangers: Schema.optional(Schema.Array(Stranger)),
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
 * The backlog of an outbox, in total and by lane.
 *
 * @since 0.1.0
 * @category models
 */
export type Overview = typeof Overview.Type

/**
 * An event without its payload.
 *
 * @since 0.1.0
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
 * An event without its payload.
 *
 * @since 0.1.0
 * @category models
 */
export type EventSummary = typeof EventSummary.Type

/**
 * An attempt that failed for the event alone.
 *
 * @since 0.1.0
 * @category schemas
 */
export const FailedAttempt = Schema.Struct({
  at: Schema.Number,
  error: Schema.String,
  /** When the event is retried. Absent if it was parked. */
  nextAttemptAt: Schema.optional(Schema.Number)
}).annotations({ identifier: "FailedAttempt" })

/**
 * An attempt that failed for the event alone.
 *
 * @since 0.1.0
 * @category models
 */
export type FailedAttempt = typeof FailedAttempt.Type

/**
 * An event as a whole.
 *
 * @since 0.1.0
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
  /** The last 20, newest first. */
  failedAttempts: Schema.Array(FailedAttempt)
}).annotations({ identifier: "EventDetail" })

/**
 * An event with its payload and its last failed attempts.
 *
 * @since 0.1.0
 * @category models
 */
export type EventDetail = typeof EventDetail.Type

/**
 * The result of an erasure, and where the payload may still be.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Erased = Schema.Struct({
  eventId: Schema.String,
  /** The version under which the feed has it. Absent for a discarded event, which was never published. */
  controlVersion: Schema.optional(Schema.Number),
  /** The artifact that the event named, which is not erased. */
  artifactRef: Schema.optional(Schema.String),
  /** What still holds the payload or copies of it, one sentence each. */
  remains: Schema.Array(Schema.String)
}).annotations({ identifier: "Erased" })

/**
 * The result of an erasure.
 *
 * @since 0.1.0
 * @category models
 */
export type Erased = typeof Erased.Type

/**
 * A page of events.
 *
 * @since 0.1.0
 * @category schemas
 */
export const EventPage = Schema.Struct({
  events: Schema.Array(EventSummary),
  /** Where the next page begins; absent at the end. */
  next: Schema.optional(Schema.String)
}).annotations({ identifier: "EventPage" })

/**
 * A page of events.
 *
 * @since 0.1.0
 * @category models
 */
export type EventPage = typeof EventPage.Type
