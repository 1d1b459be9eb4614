/**
 * How far a snapshot of the producer's database is in the feed, so that a new node can go on from there.
 *
 * @since 1.0.0
 */
import type { EventId } from "../EventId.js"
import type { Position } from "./Source.js"

/**
 * What `AppliedEvents.start` takes, with the identity of the feed.
 *
 * @since 1.0.0
 * @category models
 */
export interface Snapshot {
  /** The snapshot holds every event up to this version. */
  readonly position: Position
  /** The events that it holds and that were not known to be published: they come after the position. */
  readonly pending: ReadonlyArray<EventId>
}
