/**
 * The port to the outbox's database: what `Outbox` and `Pump` need.
 *
 * @since 0.1.0
 */
import type * as Arr from "effect/Array"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { ControlEvent } from "./ControlEvent.js"
import type { ControlVersion } from "./ControlVersion.js"
import type { EventId } from "./EventId.js"
import type { Lane } from "./Lane.js"
import type { OrderingKey } from "./OrderingKey.js"

/**
 * Keeps the rows of the outbox. Every instant is in milliseconds since the epoch, from the caller's `Clock`.
 *
 * @since 0.1.0
 * @category models
 */
export class OutboxStore extends Context.Tag("controlpublish/OutboxStore")<
  OutboxStore,
  {
    /**
     * Appends rows to the ambient transaction, in the order given, all or none. After a `DuplicateEventId` the
     * transaction can continue; after an `OutboxError` the database has aborted it.
     */
    readonly append: (
      rows: Arr.NonEmptyReadonlyArray<NewRow>
    ) => Effect.Effect<void, NotInTransaction | DuplicateEventId | OutboxError>

    /**
     * Runs an effect in a transaction of the store's database: commits if it succeeds, else rolls back. Inside a
     * transaction it is a savepoint. Fails with `OutboxError` if the commit fails.
     */
    readonly withTransaction: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | OutboxError, R>

    /** Finds the lanes with rows that can be published at `now`, whether or not another pump holds them. */
    readonly probe: (options: ProbeOptions) => Effect.Effect<Probe, OutboxError>

    /**
     * Takes the lanes that nobody holds, and the first of their publishable rows in the order of their ids. The lanes
     * are held until the scope closes. A scope that closes before `settle` leaves every row unchanged.
     */
    readonly claim: (options: ClaimOptions) => Effect.Effect<ClaimResult, OutboxError, Scope.Scope>

    /** Counts the backlog, up to `limit`. */
    readonly backlog: (options: { readonly limit: number }) => Effect.Effect<Backlog, OutboxError>

    /** Returns the parked rows, oldest first, at most `limit`. */
    readonly parked: (options: { readonly limit: number }) => Effect.Effect<ReadonlyArray<ParkedEvent>, OutboxError>

    /**
     * Makes parked events pending again, in their old place and with a fresh count of attempts. Returns the ids that
     * were parked.
     */
    readonly redrive: (eventIds: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<EventId>, OutboxError>
  }
>() {}

/**
 * The append is outside a transaction of the outbox's database, so the change and its event would not commit together.
 * The transaction can be another client's if that client connects to the same database.
 *
 * @since 0.1.0
 * @category errors
 */
export class NotInTransaction extends Schema.TaggedError<NotInTransaction>("controlpublish/NotInTransaction")(
  "NotInTransaction",
  {
    /** Why the transaction around the append does not count. Absent if there is none. */
    reason: Schema.optionalWith(Schema.Literal("OtherDatabase"), { exact: true }),
    /** The database of the transaction, for `OtherDatabase`. */
    database: Schema.optionalWith(Schema.String, { exact: true })
  }
) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    if (this.reason === "OtherDatabase") {
      return `Outbox.append was called in a transaction of another database (${this.database}): begin the transaction with a client of the outbox's database`
    }
    return "Outbox.append was called outside a transaction: wrap the change and the append in one, e.g. sql.withTransaction"
  }
}

/**
 * The outbox already has an event with this id, or one call has it twice. The call appended nothing, and the
 * transaction can continue.
 *
 * @since 0.1.0
 * @category errors
 */
export class DuplicateEventId extends Schema.TaggedError<DuplicateEventId>("controlpublish/DuplicateEventId")(
  "DuplicateEventId",
  { eventId: Schema.String }
) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    return `The outbox already holds an event with the id ${JSON.stringify(this.eventId)}`
  }
}

/**
 * The database failed.
 *
 * @since 0.1.0
 * @category errors
 */
export class OutboxError extends Schema.TaggedError<OutboxError>("controlpublish/OutboxError")("OutboxError", {
  message: Schema.String,
  /** Whether a retry of the same transaction can succeed (a deadlock, a lost connection). */
  retryable: Schema.Boolean,
  /**
   * Set if the surrounding transaction is the cause: it is in another database, it is read-only, or an earlier
   * statement failed.
   */
  reason: Schema.optionalWith(Schema.Literal("OtherDatabase", "ReadOnlyTransaction", "FailedTransaction"), {
    exact: true
  }),
  cause: Schema.optionalWith(Schema.Defect, { exact: true })
}) {}

/**
 * A row to append.
 *
 * @since 0.1.0
 * @category rows
 */
export interface NewRow {
  readonly event: ControlEvent
  /** The event as JSON text, exactly as the feed will carry it. */
  readonly payload: string
  readonly orderingKey: OrderingKey
  /** W3C trace context of the append. */
  readonly traceparent: string | undefined
}

/**
 * Whether a parked event keeps the later events of its key waiting (`wait`) or not (`pass`). An event that waits for
 * its retry always does.
 *
 * @since 0.1.0
 * @category models
 */
export type AfterParked = "pass" | "wait"

/**
 * What to look for in the lanes.
 *
 * @since 0.1.0
 * @category models
 */
export interface ProbeOptions {
  readonly now: number
  readonly afterParked: AfterParked
}

/**
 * The lanes with publishable rows, and when the next row becomes publishable.
 *
 * @since 0.1.0
 * @category models
 */
export interface Probe {
  /** The lanes with publishable rows. */
  readonly lanes: ReadonlyArray<Lane>
  /** The lanes with at least {@link crowd} pending rows. */
  readonly crowded: ReadonlySet<Lane>
  /** When the next waiting row becomes publishable. */
  readonly nextAttemptAt: number | undefined
}

/**
 * The number of pending rows that makes a lane crowded, and worth its own batch.
 *
 * @since 0.1.0
 * @category constants
 */
export const crowd = 32

/**
 * Which rows to claim, and how many.
 *
 * @since 0.1.0
 * @category models
 */
export interface ClaimOptions extends ProbeOptions {
  readonly lanes: Arr.NonEmptyReadonlyArray<Lane>
  /** At most this many rows. */
  readonly limit: number
  /** Rows are taken until their payloads reach this many bytes. The first row is always taken. */
  readonly maxBytes: number
  /** Milliseconds after which the store may take the lanes from a silent holder. */
  readonly holdFor: number
}

/**
 * The result of a claim.
 *
 * @since 0.1.0
 * @category models
 */
export type ClaimResult =
  | Claim
  /** Others hold all the lanes. */
  | { readonly _tag: "LanesHeld" }
  /** Nothing is publishable in the lanes that could be taken. */
  | { readonly _tag: "LanesEmpty" }

/**
 * The rows of held lanes, in the order of their ids.
 *
 * @since 0.1.0
 * @category models
 */
export interface Claim {
  readonly _tag: "Claim"
  readonly rows: Arr.NonEmptyReadonlyArray<ClaimedRow>
  /**
   * Reads the rows after all those that the claim has returned, as if those were published already. It extends the hold
   * of the lanes: `holdFor` counts from this call. Empty if nothing follows.
   */
  readonly following: (options: FollowingOptions) => Effect.Effect<ReadonlyArray<ClaimedRow>, OutboxError>
  /**
   * Writes published rows while the lanes stay held. A row that has been recorded meanwhile, after the hold was lost,
   * stays unchanged. Must end before the claim does.
   */
  readonly record: (settlement: Pick<Settlement, "now" | "published">) => Effect.Effect<void, OutboxError>
  /**
   * Writes the results of rows and ends the claim. Rows that it does not name stay unchanged. A failure leaves all rows
   * unchanged.
   */
  readonly settle: (settlement: Settlement) => Effect.Effect<void, OutboxError>
}

/**
 * How much a claim reads ahead.
 *
 * @since 0.1.0
 * @category models
 */
export type FollowingOptions = Pick<ClaimOptions, "afterParked" | "limit" | "maxBytes" | "now">

/**
 * A row as it is in the store. It is not validated: anything may insert rows.
 *
 * @since 0.1.0
 * @category rows
 */
export interface ClaimedRow {
  /** The row's key in the store. */
  readonly id: string
  readonly eventId: string
  readonly orderingKey: string
  readonly payload: string
  readonly traceparent: string | undefined
  readonly createdAt: number
  /** Earlier attempts that failed for this event alone. */
  readonly attemptCount: number
  /**
   * Why the row can never be published: it exceeds the store's bounds. Its payload is then `""` and its texts are cut.
   */
  readonly refused?: string | undefined
}

/**
 * The results of a claim's rows.
 *
 * @since 0.1.0
 * @category models
 */
export interface Settlement {
  readonly now: number
  readonly published: ReadonlyArray<{ readonly id: string; readonly version: ControlVersion }>
  /** Rows to retry. */
  readonly failed: ReadonlyArray<{ readonly id: string; readonly error: string; readonly nextAttemptAt: number }>
  /** Rows that failed for good. */
  readonly parked: ReadonlyArray<{ readonly id: string; readonly error: string }>
}

/**
 * The longest error that a row keeps, in characters.
 *
 * @since 0.1.0
 * @category constants
 */
export const maxErrorLength = 200

/**
 * The unpublished rows of an outbox.
 *
 * @since 0.1.0
 * @category models
 */
export interface Backlog {
  /** Rows that are neither published nor parked, the waiting ones included. */
  readonly pending: Count
  /** Pending rows that wait for a retry. */
  readonly waiting: Count
  readonly parked: Count
  /** When the oldest of the first pending rows of each lane was created. */
  readonly oldestPendingAt: number | undefined
}

/**
 * A count. It is a lower bound if it stopped at a limit.
 *
 * @since 0.1.0
 * @category models
 */
export interface Count {
  readonly value: number
  readonly exact: boolean
}

/**
 * A parked event with its error.
 *
 * @since 0.1.0
 * @category rows
 */
export interface ParkedEvent {
  readonly eventId: string
  readonly type: string
  readonly orderingKey: string
  readonly attemptCount: number
  readonly parkedAt: number
  readonly error: string
}
