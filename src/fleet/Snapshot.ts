/**
 * The position of a snapshot of the producer's database in the feed, from which a new node goes on.
 *
 * @since 0.1.0
 */
import type { EventId } from "../EventId.js"
import type { Position } from "./Source.js"

/**
 * What `AppliedEvents.start` takes, with the identity of the feed.
 *
 * @since 0.1.0
 * @category models
 */
export interface Snapshot {
  /** The snapshot holds every event up to this version. */
  readonly position: Position
  /** The events that it holds and that were not known to be published. They come after the position. */
  readonly pending: ReadonlyArray<EventId>
}
