/**
 * The port for operators: to look into an outbox and to repair it.
 *
 * It does not delay the pump. Every query is bounded, so it costs the same however large the table is. Every action is
 * recorded in the audit log with its actor and reason.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type { OutboxError } from "./OutboxStore.js"
import type { AttendedPump, PumpReport } from "./PumpStatus.js"
import {
  EventFilter,
  EventState,
  type Erased,
  type EventDetail,
  type EventPage,
  type OutboxIdentity,
  type Overview
} from "./OutboxViews.js"

/**
 * Every instant is in milliseconds since the epoch.
 *
 * @since 0.1.0
 * @category models
 */
export class OutboxAdmin extends Context.Tag("controlpublish/OutboxAdmin")<
  OutboxAdmin,
  {
    /** Returns the identity of this outbox, so that two programs can tell whether they use the same one. */
    readonly identity: () => Effect.Effect<OutboxIdentity, OutboxError>

    /** Takes what a pump says of itself. One that stays silent for 30 seconds is lost, and for an hour is forgotten. */
    readonly attend: (report: PumpReport) => Effect.Effect<void, OutboxError>

    /** Forgets a pump that stops. */
    readonly leave: (id: string) => Effect.Effect<void, OutboxError>

    /** The pumps of the outbox, wherever they run, oldest first, at most 100. */
    readonly pumps: () => Effect.Effect<ReadonlyArray<AttendedPump>, OutboxError>

    /**
     * Returns the backlog, in total and for each lane that has one. Counts stop at `limit`, those of a lane at a 64th
     * of it.
     */
    readonly overview: (options: { readonly limit: number }) => Effect.Effect<Overview, OutboxError>

    /**
     * Returns the events that match a filter, newest first. A page looks at a bounded number of rows: it may have fewer
     * events than asked for, even none, and `next` then says where to go on.
     */
    readonly events: (filter: EventFilter, page: PageOptions) => Effect.Effect<EventPage, InvalidCursor | OutboxError>

    /** Returns one event with its payload, or the beginning of a large one, and its attempts. */
    readonly event: (eventId: string) => Effect.Effect<Option.Option<EventDetail>, OutboxError>

    /** Returns the whole payload of an event in pieces, so a large one is never in memory as a whole. */
    readonly payload: (eventId: string) => Effect.Effect<Payload, EventNotFound | PayloadOmitted | OutboxError>

    /**
     * Makes the parked events that match a filter pending again, in their old place and with a fresh count of attempts,
     * and returns their number. `{}` matches all of them. Many events are redriven in chunks: a failure keeps the
     * chunks that are done.
     */
    readonly redrive: (filter: EventFilter, by: By) => Effect.Effect<number, OutboxError>

    /** Parks a pending event. Waits for a publish of it that is in flight, which may succeed. */
    readonly park: (eventId: string, by: By) => Effect.Effect<void, EventNotFound | WrongState | OutboxError>

    /**
     * Deletes an event that is not published from the outbox. The audit log keeps the whole row. Waits for a publish of
     * it that is in flight, which may succeed. After a publish without an answer, the feed may hold the event.
     */
    readonly discard: (eventId: string, by: By) => Effect.Effect<void, EventNotFound | WrongState | OutboxError>

    /**
     * Replaces the payload of a published event by a marker, and removes its errors. The marker is a valid event with the
     * same id, type, tenant, stack and versions, and `"erased": true`. The payload of a discarded event is replaced in
     * the audit. An event that is not published yet fails with `WrongState`: discard it first.
     */
    readonly erase: (eventId: string, by: By) => Effect.Effect<Erased, EventNotFound | WrongState | OutboxError>

    /** Records an action on something else, such as a pump, in the audit log. */
    readonly record: (
      action: AuditAction,
      by: By,
      about?: { readonly eventId?: string | undefined; readonly affected?: number | undefined }
    ) => Effect.Effect<void, OutboxError>

    /** The audit, newest first. */
    readonly audit: (
      page: PageOptions & {
        /** Whether to leave out reads and refused writes. Default: all entries. */
        readonly changesOnly?: boolean | undefined
      }
    ) => Effect.Effect<AuditPage, InvalidCursor | OutboxError>

    /**
     * Removes the oldest published rows that a retention does not keep, at most `limit`. Returns how many were removed
     * and whether to go on: a call looks at a bounded number of rows and may find none while there are more.
     * Unpublished rows are never removed. Does nothing while another process prunes.
     */
    readonly prune: (
      retention: Retention,
      options: { readonly limit: number }
    ) => Effect.Effect<{ readonly removed: number; readonly more: boolean }, OutboxError>
  }
>() {}

export {
  /**
   * @since 0.1.0
   * @category schemas
   */
  Count,
  /**
   * @since 0.1.0
   * @category schemas
   */
  Erased,
  /**
   * @since 0.1.0
   * @category schemas
   */
  EventDetail,
  /**
   * @since 0.1.0
   * @category schemas
   */
  EventFilter,
  /**
   * @since 0.1.0
   * @category schemas
   */
  EventPage,
  /**
   * @since 0.1.0
   * @category schemas
   */
  EventState,
  /**
   * @since 0.1.0
   * @category schemas
   */
  EventSummary,
  /**
   * @since 0.1.0
   * @category schemas
   */
  FailedAttempt,
  /**
   * @since 0.1.0
   * @category schemas
   */
  OutboxIdentity,
  /**
   * @since 0.1.0
   * @category schemas
   */
  Overview,
  /**
   * @since 0.1.0
   * @category schemas
   */
  Stranger
} from "./OutboxViews.js"

/**
 * Which page of a list to return.
 *
 * @since 0.1.0
 * @category models
 */
export interface PageOptions {
  /** At most this many. */
  readonly limit: number
  /** Where the previous page ended: its `next`. */
  readonly cursor?: string | undefined
}

/**
 * An operator's action. `read`: somebody read a payload · `refused`: a write that was not allowed or not possible.
 *
 * @since 0.1.0
 * @category schemas
 */
export const AuditAction = Schema.Literal(
  "redrive",
  "park",
  "discard",
  "erase",
  "pause",
  "resume",
  "prune",
  "read",
  "refused"
).annotations({ identifier: "AuditAction" })

/**
 * The name of an operator's action.
 *
 * @since 0.1.0
 * @category models
 */
export type AuditAction = typeof AuditAction.Type

/**
 * Who acts, and why.
 *
 * @since 0.1.0
 * @category models
 */
export interface By {
  readonly actor: string
  readonly reason: string
}

/**
 * An entry of the audit log. `at` is in milliseconds since the epoch.
 *
 * @since 0.1.0
 * @category schemas
 */
export const AuditEntry = Schema.Struct({
  at: Schema.Number,
  action: AuditAction,
  actor: Schema.String,
  reason: Schema.String,
  /** The event, if it was one. */
  eventId: Schema.optional(Schema.String),
  /** The filter, if it may have been several events: the parked ones that match it. */
  filter: Schema.optional(EventFilter),
  /** The number of events. */
  affected: Schema.optional(Schema.Number)
}).annotations({ identifier: "AuditEntry" })

/**
 * One action of an operator.
 *
 * @since 0.1.0
 * @category models
 */
export type AuditEntry = typeof AuditEntry.Type

/**
 * A page of the audit log.
 *
 * @since 0.1.0
 * @category schemas
 */
export const AuditPage = Schema.Struct({
  entries: Schema.Array(AuditEntry),
  /** Where the next page begins; absent at the end. */
  next: Schema.optional(Schema.String)
}).annotations({ identifier: "AuditPage" })

/**
 * A page of the audit log, newest entries first.
 *
 * @since 0.1.0
 * @category models
 */
export type AuditPage = typeof AuditPage.Type

/**
 * The exact text that the feed carries, in UTF-8.
 *
 * @since 0.1.0
 * @category models
 */
export interface Payload {
  readonly bytes: number
  /** Each is read when it is pulled. Fails if the payload changes meanwhile. */
  readonly pieces: Stream.Stream<Uint8Array, OutboxError>
}

/**
 * Which published rows are kept.
 *
 * @since 0.1.0
 * @category models
 */
export type Retention =
  /** Rows published less than this ago. */
  | { readonly _tag: "Age"; readonly age: Duration.DurationInput }
  /** The newest rows, at most this many. */
  | { readonly _tag: "Count"; readonly count: number }

/**
 * The cursor does not come from a page.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidCursor extends Schema.TaggedError<InvalidCursor>("controlpublish/InvalidCursor")("InvalidCursor", {
  cursor: Schema.String
}) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    return `invalid cursor ${JSON.stringify(this.cursor)}: use the "next" of the previous page`
  }
}

/**
 * The outbox has no event with this id.
 *
 * @since 0.1.0
 * @category errors
 */
export class EventNotFound extends Schema.TaggedError<EventNotFound>("controlpublish/EventNotFound")("EventNotFound", {
  eventId: Schema.String
}) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    return `The outbox holds no event with the id ${JSON.stringify(this.eventId)}`
  }
}

/**
 * The payload exceeds the outbox's limit and is not read.
 *
 * @since 0.1.0
 * @category errors
 */
export class PayloadOmitted extends Schema.TaggedError<PayloadOmitted>("controlpublish/PayloadOmitted")(
  "PayloadOmitted",
  { eventId: Schema.String, bytes: Schema.Number }
) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    return `The payload of ${JSON.stringify(this.eventId)} is beyond the outbox's limit: it has ${this.bytes} bytes`
  }
}

/**
 * The event's state does not allow the action.
 *
 * @since 0.1.0
 * @category errors
 */
export class WrongState extends Schema.TaggedError<WrongState>("controlpublish/WrongState")("WrongState", {
  eventId: Schema.String,
  state: EventState,
  message: Schema.String
}) {}
