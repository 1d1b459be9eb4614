/**
 * Where a node reads the feed.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { ControlVersion } from "../ControlVersion.js"
import type { FeedBound } from "../FeedBound.js"

/**
 * Reads a feed.
 *
 * A source promises:
 *
 * - The events after a position come in the order of their control versions, each once, without omission.
 * - The stream continues with new events. It ends only by interruption or with a `SourceError`.
 * - A gap, a feed that ends before the position, and text that is no event are a `SourceError`, never silence.
 * - Reading again from a position returns the same events again.
 * - A slow reader slows it down: it holds a bounded number of events.
 *
 * `SourceConformance` in `controlpublish/testing` checks them.
 *
 * @since 0.1.0
 * @category models
 */
export class Source extends Context.Tag("controlpublish/Source")<
  Source,
  {
    /** The source's name in settings, logs and metrics. */
    readonly name: string
    /** Whether an applier with this source does nothing: no query, no fiber, no connection. */
    readonly inert: boolean
    /** The feed as it is now. */
    readonly look: Effect.Effect<Feed, SourceError>
    /**
     * Streams the events after a position, then new ones. If `feed` is given, fails with `replaced` if the feed has
     * another identity by now: a reader must not continue in a feed that took its place.
     */
    readonly events: (after: Position, feed?: Feed["identity"]) => Stream.Stream<FeedEvent, SourceError>
    /**
     * Tells the source that everything up to the version is applied. The node keeps the position, so a source may
     * ignore this, and a lost acknowledgement loses nothing.
     */
    readonly acknowledge: (version: ControlVersion) => Effect.Effect<void, SourceError>
    /**
     * How near a position is to where the feed removes events before they are read. Absent if the feed keeps all events.
     */
    readonly margin?: (position: Position) => Effect.Effect<Margin, SourceError>
  }
>() {}

/**
 * What the settings of a feed limit, and how far a position is behind as a share of that.
 *
 * @since 0.1.0
 * @category models
 */
export interface Margin {
  /** From 0, if nothing is unread or the feed removes nothing, to 1: the next event is removed now, or was. */
  readonly used: number
  readonly bounds: ReadonlyArray<FeedBound>
}

/**
 * A node's position: the control version of the last event it applied, 0 before the first.
 *
 * @since 0.1.0
 * @category models
 */
export type Position = number

/**
 * A feed and the versions that it holds.
 *
 * @since 0.1.0
 * @category models
 */
export interface Feed {
  /**
   * Distinguishes this feed from another one that takes its place, whose versions begin again. `""` if the source
   * cannot tell.
   */
  readonly identity: string
  /** The version of the newest event, 0 if there is none. */
  readonly newest: Position
  /** The version of the oldest event that exists, or of the next one if there is none. */
  readonly oldest: Position
  /**
   * For a source that reads only a part of the feed: the newest version of the whole feed, read before `newest`. Then
   * `newest` and `oldest` are those of the part.
   */
  readonly head?: Position | undefined
}

/**
 * An event as it is in the feed. Its text is not validated.
 *
 * @since 0.1.0
 * @category models
 */
export interface FeedEvent {
  readonly version: ControlVersion
  /** The event's JSON text, with or without its control version. */
  readonly text: string
  /** W3C trace context of the append. */
  readonly traceparent: string | undefined
}

/**
 * The feed cannot be read.
 *
 * - `unavailable`: it is unreachable now. A retry can help.
 * - `misconfigured`: it is missing or cannot be read until somebody fixes that.
 * - `gap`: events after the position are gone. The node needs a snapshot, see `AppliedEvents.start`.
 * - `beyond`: the feed ends before the position. It is another one, or was restored from a backup.
 * - `replaced`: the feed is not the one of the position.
 * - `malformed`: something in the feed is no event. The message says what and why.
 *
 * @since 0.1.0
 * @category errors
 */
export class SourceError extends Schema.TaggedError<SourceError>("controlpublish/SourceError")("SourceError", {
  source: Schema.String,
  reason: Schema.Literal("unavailable", "misconfigured", "gap", "beyond", "replaced", "malformed"),
  /** One line: what happened, and what to do. */
  message: Schema.String,
  cause: Schema.optionalWith(Schema.Defect, { exact: true })
}) {}

/**
 * The error of a feed that ends before a position.
 *
 * @since 0.1.0
 * @category errors
 */
export const beyond = (source: string, after: Position, newest: Position): SourceError =>
  new SourceError({
    source,
    reason: "beyond",
    message: `This node has applied control version ${after}, and the feed ends at ${newest}: it is another feed, or was restored from a backup. Start from a snapshot, or from 0 if the feed holds everything`
  })

/**
 * A source of nothing. An applier with it does nothing.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerNop: Layer.Layer<Source> = Layer.succeed(Source, {
  name: "nop",
  inert: true,
  look: Effect.succeed({ identity: "", newest: 0, oldest: 1 }),
  events: () => Stream.never,
  acknowledge: () => Effect.void
})
