/**
 * What a node has applied: the guard that makes deliveries that come twice count once.
 *
 * @since 1.0.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { ControlVersion } from "../ControlVersion.js"
import type { EventId } from "../EventId.js"
import type { Position } from "./Source.js"

/**
 * @since 1.0.0
 * @category models
 */
export class AppliedEvents extends Context.Tag("controlpublish/AppliedEvents")<
  AppliedEvents,
  {
    /** How far this node is, and in which feed. */
    readonly cursor: Effect.Effect<Cursor, AppliedEventsError>

    /** Whether the event is applied or set aside. */
    readonly isApplied: (eventId: EventId) => Effect.Effect<boolean, AppliedEventsError>

    /**
     * Runs an effect for an event that is not applied yet, and marks it. The effect, the mark and the cursor commit in
     * one transaction, or nothing of them does. For an event that is applied, only the cursor moves, and the answer is
     * `skipped`. Of two who apply the same event one waits for the other, and then skips.
     */
    readonly applyOnce: <A, E, R>(
      event: Delivery,
      effect: Effect.Effect<A, E, R>
    ) => Effect.Effect<"applied" | "skipped", E | AppliedEventsError, R>

    /**
     * `applyOnce` for several events in one transaction, one after the other: everything of all of them commits, or
     * nothing of any. Answers in their order.
     */
    readonly applyAll: <E, R>(
      events: ReadonlyArray<readonly [Delivery, Effect.Effect<unknown, E, R>]>
    ) => Effect.Effect<ReadonlyArray<"applied" | "skipped">, E | AppliedEventsError, R>

    /** Whether nothing is kept of effects that fail. Where it is, nobody should apply several events at once. */
    readonly isTransactional: boolean

    /** Marks an event without applying it, and keeps the reason. */
    readonly setAside: (event: Delivery, reason: string) => Effect.Effect<"setAside" | "skipped", AppliedEventsError>

    /** The events that were set aside, newest first, at most `limit` of them (default 100). */
    readonly asides: (options?: { readonly limit?: number }) => Effect.Effect<ReadonlyArray<Aside>, AppliedEventsError>

    /**
     * Starts the node from a snapshot: runs the effect that puts the snapshot in the place of everything that the node
     * has, and sets the cursor, in one transaction. Marks of events that the snapshot does not hold are removed, so that
     * these are applied again. Not while an applier is running.
     */
    readonly start: <A, E, R>(
      snapshot: SnapshotCursor,
      effect: Effect.Effect<A, E, R>
    ) => Effect.Effect<A, E | AppliedEventsError, R>

    /**
     * Sets the cursor, and keeps what the node has with its marks: going back applies nothing twice, and going forward
     * says that the node has what is passed. Fails where marks after the position are not there any more. Not while an
     * applier is running.
     */
    readonly seek: (cursor: Cursor) => Effect.Effect<void, MarksPruned | AppliedEventsError>

    /**
     * Gives the position, and its marks, the feed that they are in, if no feed is known of them, and does nothing
     * otherwise. For nodes that read a feed before it had an identity.
     */
    readonly adopt: (feed: string) => Effect.Effect<void, AppliedEventsError>

    /**
     * Removes marks of events that lie at least `keep` control versions before the cursor and were applied at least
     * `olderThan` ago, at most `limit` of them (default 10,000), and answers how many.
     */
    readonly prune: (options: {
      readonly keep: number
      readonly olderThan: Duration.DurationInput
      readonly limit?: number
    }) => Effect.Effect<number, AppliedEventsError>
  }
>() {}

/**
 * @since 1.0.0
 * @category models
 */
export interface Cursor {
  /** The identity of the feed that the position is in, see `Source.Feed`. */
  readonly feed: string
  readonly position: Position
}

/**
 * How far a snapshot is in the feed, see `PostgresSnapshot.take`.
 *
 * @since 1.0.0
 * @category models
 */
export interface SnapshotCursor extends Cursor {
  /** The events after the position that the snapshot holds nevertheless: they were committed, and not published yet. */
  readonly pending?: ReadonlyArray<EventId> | undefined
}

/**
 * An event as it was delivered.
 *
 * @since 1.0.0
 * @category models
 */
export interface Delivery {
  readonly eventId: EventId
  readonly version: ControlVersion
  /** The identity of the feed that delivered it. */
  readonly feed: string
}

/**
 * @since 1.0.0
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
 * The node's database failed, and nothing of the transaction is kept.
 *
 * @since 1.0.0
 * @category errors
 */
export class AppliedEventsError extends Schema.TaggedError<AppliedEventsError>("controlpublish/AppliedEventsError")(
  "AppliedEventsError",
  {
    message: Schema.String,
    /** Whether the same transaction can succeed when it is tried again. */
    retryable: Schema.Boolean,
    /**
     * Set if the transaction around is the cause: it is in another database, it is read-only, or a statement in it failed
     * earlier.
     */
    reason: Schema.optionalWith(Schema.Literal("OtherDatabase", "ReadOnlyTransaction", "FailedTransaction"), {
      exact: true
    }),
    cause: Schema.optionalWith(Schema.Defect, { exact: true })
  }
) {}

/**
 * Events after the position would be applied twice: their marks were pruned, or the node started from a snapshot that
 * holds them.
 *
 * @since 1.0.0
 * @category errors
 */
export class MarksPruned extends Schema.TaggedError<MarksPruned>("controlpublish/MarksPruned")("MarksPruned", {
  position: Schema.Number,
  /** From where on marks are complete. */
  markedAfter: Schema.Number
}) {
  /**
   * @since 1.0.0
   */
  override get message(): string {
    return `Cannot go on after control version ${this.position}: this node has marks for what it applied after ${this.markedAfter} alone, and would apply the rest twice. Go on from there, or start from a snapshot`
  }
}

/**
 * How far behind the cursor marks are kept by default, and for how long: a second copy of an event is far closer to the
 * first one than that, see docs/guarantees.md.
 *
 * @since 1.0.0
 * @category defaults
 */
export const retention = { keep: 100_000, olderThan: "7 days" } as const
