/**
 * The port for people who operate an outbox: to look into it, and to mend it by hand.
 *
 * Nothing here is on the pump's way. Every question is bounded, so that it costs the same however large the table is, and
 * everything that is done by hand is written to the audit, with who did it and why.
 *
 * @since 1.0.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { OutboxError } from "./OutboxStore.js"

/**
 * Every instant is in milliseconds since the epoch.
 *
 * @since 1.0.0
 * @category models
 */
export class OutboxAdmin extends Context.Tag("controlpublish/OutboxAdmin")<
  OutboxAdmin,
  {
    /**
     * How much there is to do, in all and in each lane that has something. Counts stop at `limit`, those of a lane at a
     * 64th of it.
     */
    readonly overview: (options: { readonly limit: number }) => Effect.Effect<Overview, OutboxError>

    /**
     * Events that a filter lets through, newest first. A page looks at a bounded number of rows: it may hold fewer events
     * than asked for, even none, and `next` then says where to go on.
     */
    readonly events: (filter: EventFilter, page: PageOptions) => Effect.Effect<EventPage, InvalidCursor | OutboxError>

    /** One event with its payload and its attempts. */
    readonly event: (eventId: string) => Effect.Effect<Option.Option<EventDetail>, OutboxError>

    /**
     * Makes the parked events of a filter pending again, in their old place and with a fresh count of attempts. Answers
     * how many. `{}` is all of them. Where there are many, they go in chunks: a failure leaves those that are done.
     */
    readonly redrive: (filter: EventFilter, by: By) => Effect.Effect<number, OutboxError>

    /** Parks a pending event. A publish of it that is in flight is waited for, and may turn out to have succeeded. */
    readonly park: (eventId: string, by: By) => Effect.Effect<void, EventNotFound | WrongState | OutboxError>

    /**
     * Takes an event that is not published out of the outbox for good. The audit keeps the whole row. A publish of it
     * that is in flight is waited for, and may turn out to have succeeded.
     */
    readonly discard: (eventId: string, by: By) => Effect.Effect<void, EventNotFound | WrongState | OutboxError>

    /** Writes to the audit what was done elsewhere, as to a pump, and to how many events. */
    readonly record: (action: AuditAction, by: By, affected?: number) => Effect.Effect<void, OutboxError>

    /** What was done by hand, newest first. */
    readonly audit: (page: PageOptions) => Effect.Effect<AuditPage, InvalidCursor | OutboxError>

    /**
     * Removes the oldest published rows that a retention does not keep, at most `limit` of them, and answers how many were
     * removed and whether to go on: a look at a bounded number of rows may find none while there are more. Rows that are
     * not published are never removed. Does nothing while another process is at it.
     */
    readonly prune: (
      retention: Retention,
      options: { readonly limit: number }
    ) => Effect.Effect<{ readonly removed: number; readonly more: boolean }, OutboxError>
  }
>() {}

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
 * @since 1.0.0
 * @category models
 */
export interface PageOptions {
  /** At most this many. */
  readonly limit: number
  /** Where the page before ended: its `next`. */
  readonly cursor?: string | undefined
}

/**
 * A count that stopped at a limit is a lower bound.
 *
 * @since 1.0.0
 * @category schemas
 */
export const Count = Schema.Struct({ value: Schema.Number, exact: Schema.Boolean }).annotations({ identifier: "Count" })

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
          lastError: Schema.optional(Schema.String)
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
  publishedAt: Schema.optional(Schema.Number)
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

/**
 * @since 1.0.0
 * @category schemas
 */
export const AuditAction = Schema.Literal("redrive", "park", "discard", "pause", "resume", "prune").annotations({
  identifier: "AuditAction"
})

/**
 * @since 1.0.0
 * @category models
 */
export type AuditAction = typeof AuditAction.Type

/**
 * Who does something by hand, and why.
 *
 * @since 1.0.0
 * @category models
 */
export interface By {
  readonly actor: string
  readonly reason: string
}

/**
 * @since 1.0.0
 * @category schemas
 */
export const AuditEntry = Schema.Struct({
  at: Schema.Number,
  action: AuditAction,
  actor: Schema.String,
  reason: Schema.String,
  /** The event it was done to, where it was one. */
  eventId: Schema.optional(Schema.String),
  /** The events it was done to, where it may have been several: those parked ones that the filter lets through. */
  filter: Schema.optional(EventFilter),
  /** How many those were. */
  affected: Schema.optional(Schema.Number)
}).annotations({ identifier: "AuditEntry" })

/**
 * @since 1.0.0
 * @category models
 */
export type AuditEntry = typeof AuditEntry.Type

/**
 * @since 1.0.0
 * @category schemas
 */
export const AuditPage = Schema.Struct({
  entries: Schema.Array(AuditEntry),
  /** Where the next page begins; absent at the end. */
  next: Schema.optional(Schema.String)
}).annotations({ identifier: "AuditPage" })

/**
 * @since 1.0.0
 * @category models
 */
export type AuditPage = typeof AuditPage.Type

/**
 * What is kept of the published rows.
 *
 * @since 1.0.0
 * @category models
 */
export type Retention =
  /** Those published less than this ago. */
  | { readonly _tag: "Age"; readonly age: Duration.DurationInput }
  /** The newest, at most this many. */
  | { readonly _tag: "Count"; readonly count: number }

/**
 * A cursor that no page has given.
 *
 * @since 1.0.0
 * @category errors
 */
export class InvalidCursor extends Schema.TaggedError<InvalidCursor>("controlpublish/InvalidCursor")("InvalidCursor", {
  cursor: Schema.String
}) {
  /**
   * @since 1.0.0
   */
  override get message(): string {
    return `${JSON.stringify(this.cursor)} is no cursor: valid is what the page before gave as "next"`
  }
}

/**
 * There is no such event in the outbox.
 *
 * @since 1.0.0
 * @category errors
 */
export class EventNotFound extends Schema.TaggedError<EventNotFound>("controlpublish/EventNotFound")("EventNotFound", {
  eventId: Schema.String
}) {
  /**
   * @since 1.0.0
   */
  override get message(): string {
    return `The outbox holds no event with the id ${JSON.stringify(this.eventId)}`
  }
}

/**
 * The event is in a state in which this cannot be done to it.
 *
 * @since 1.0.0
 * @category errors
 */
export class WrongState extends Schema.TaggedError<WrongState>("controlpublish/WrongState")("WrongState", {
  eventId: Schema.String,
  state: EventState,
  message: Schema.String
}) {}
