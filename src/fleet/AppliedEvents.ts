/**
 * What a node has applied, so that an event that is delivered twice is applied once.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { ControlVersion } from "../ControlVersion.js"
import type { EventId } from "../EventId.js"
import type { Position } from "./Source.js"

/**
 * Keeps the position of a node and a mark for each event that it has applied.
 *
 * @since 0.1.0
 * @category models
 */
export class AppliedEvents extends Context.Tag("controlpublish/AppliedEvents")<
  AppliedEvents,
  {
    /** The node's position, and its feed. */
    readonly cursor: Effect.Effect<Cursor, AppliedEventsError>

    /** Tells whether the event was applied or set aside. */
    readonly isApplied: (eventId: EventId) => Effect.Effect<boolean, AppliedEventsError>

    /**
     * Runs an effect for an event that was not applied yet, and marks the event. Effect, mark and cursor commit in one
     * transaction, or none does. For an event that was applied, only the cursor moves and the result is `skipped`. If
     * two appliers apply the same event, one waits for the other and then skips it.
     */
    readonly applyOnce: <A, E, R>(
      event: Delivery,
      effect: Effect.Effect<A, E, R>
    ) => Effect.Effect<"applied" | "skipped", E | AppliedEventsError, R>

    /**
     * Runs one effect for those of the events that were not applied yet, and marks the events. The effect gets their
     * indexes in order, of events with the same id only the first, and does not run if there are none. Effect, marks
     * and cursor commit in one transaction, or none does. Returns the results in order.
     */
    readonly applyAll: <E, R>(
      events: ReadonlyArray<Delivery>,
      effect: (fresh: ReadonlyArray<number>) => Effect.Effect<unknown, E, R>
    ) => Effect.Effect<ReadonlyArray<"applied" | "skipped">, E | AppliedEventsError, R>

    /** Whether effects that fail are rolled back. If not, an applier applies one event at a time. */
    readonly isTransactional: boolean

    /** Marks an event without applying it, with the reason. */
    readonly setAside: (event: Delivery, reason: string) => Effect.Effect<"setAside" | "skipped", AppliedEventsError>

    /** Returns the events that were set aside, newest first, at most `limit` (default 100). */
    readonly asides: (options?: { readonly limit?: number }) => Effect.Effect<ReadonlyArray<Aside>, AppliedEventsError>

    /**
     * Starts the node from a snapshot: in one transaction, runs the effect that replaces everything that the node has,
     * and sets the cursor. Removes the marks of events that the snapshot does not hold, so that these are applied
     * again. Do not call it while an applier runs.
     */
    readonly start: <A, E, R>(
      snapshot: SnapshotCursor,
      effect: Effect.Effect<A, E, R>
    ) => Effect.Effect<A, E | AppliedEventsError, R>

    /**
     * Sets the cursor and keeps the node's data and marks. Going back applies nothing twice; going forward declares
     * that the node has what is passed. Fails with `MarksPruned` if marks after the position were removed. Do not call
     * it while an applier runs.
     */
    readonly seek: (cursor: Cursor) => Effect.Effect<void, MarksPruned | AppliedEventsError>

    /**
     * Sets the feed of the position and its marks if it is unknown; otherwise does nothing. For nodes that read a feed
     * before it had an identity.
     */
    readonly adopt: (feed: string) => Effect.Effect<void, AppliedEventsError>

    /**
     * Removes the marks of events that lie at least `keep` control versions before the cursor and were applied at least
     * `olderThan` ago, at most `limit` (default 10,000). Returns their number.
     */
    readonly prune: (options: {
      readonly keep: number
      readonly olderThan: Duration.DurationInput
      readonly limit?: number
    }) => Effect.Effect<number, AppliedEventsError>
  }
>() {}

/**
 * A position in a feed.
 *
 * @since 0.1.0
 * @category models
 */
export interface Cursor {
  /** The identity of the position's feed, see `Source.Feed`. */
  readonly feed: string
  readonly position: Position
}

/**
 * How far a snapshot is in the feed, see `PostgresSnapshot.take`.
 *
 * @since 0.1.0
 * @category models
 */
export interface SnapshotCursor extends Cursor {
  /** The events after the position that the snapshot holds: they were committed and not published yet. */
  readonly pending?: ReadonlyArray<EventId> | undefined
}

/**
 * An event as it was delivered.
 *
 * @since 0.1.0
 * @category models
 */
export interface Delivery {
  readonly eventId: EventId
  readonly version: ControlVersion
  /** The identity of the feed that delivered it. */
  readonly feed: string
}

/**
 * An event that was set aside.
 *
 * @since 0.1.0
 * @category models
 */
export interface Aside {
  readonly eventId: string
  readonly version: number
  readonly reason: string
  /** Milliseconds since the epoch. */
  readonly at: number
}

/**
 * The node's database failed. The transaction was rolled back.
 *
 * @since 0.1.0
 * @category errors
 */
export class AppliedEventsError extends Schema.TaggedError<AppliedEventsError>("controlpublish/AppliedEventsError")(
  "AppliedEventsError",
  {
    message: Schema.String,
    /** Whether a retry of the same transaction can succeed. */
    retryable: Schema.Boolean,
    /**
     * Set if the surrounding transaction is the cause: it is in another database, it is read-only, or an earlier
     * statement failed.
     */
    reason: Schema.optionalWith(Schema.Literal("OtherDatabase", "ReadOnlyTransaction", "FailedTransaction"), {
      exact: true
    }),
    cause: Schema.optionalWith(Schema.Defect, { exact: true })
  }
) {}

/**
 * Events after the position would be applied twice: their marks were removed, or the node started from a snapshot that
 * holds them.
 *
 * @since 0.1.0
 * @category errors
 */
export class MarksPruned extends Schema.TaggedError<MarksPruned>("controlpublish/MarksPruned")("MarksPruned", {
  position: Schema.Number,
  /** The version from which on marks are complete. */
  markedAfter: Schema.Number
}) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    return `Cannot continue after control version ${this.position}: this node has marks only for events after ${this.markedAfter} and would apply the others twice. Continue from ${this.markedAfter}, or start from a snapshot`
  }
}

/**
 * How far behind the cursor, and for how long, marks are kept by default. A second copy of an event comes much sooner,
 * see docs/guarantees.md.
 *
 * @since 0.1.0
 * @category defaults
 */
export const retention = { keep: 100_000, olderThan: "7 days" } as const
