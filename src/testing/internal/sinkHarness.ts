import type * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as EventId from "../../EventId.js"
import { Sink, type OutboundEvent, type Outcome, type SinkUnavailable } from "../../Sink.js"
import { Broken, missing } from "./broken.js"

/**
 * How the laws access a sink. A `Feed` is whatever names one feed: a directory, a stream, a built context.
 *
 * @since 0.1.0
 * @category models
 */
export interface Harness<Feed> {
  /** Makes an empty feed for one law. */
  readonly empty: Effect.Effect<Feed, unknown, Scope.Scope>
  /** The sink on a feed. Built again on the same feed it is that sink after a restart. */
  readonly layer: (feed: Feed) => Layer.Layer<Sink, unknown>
  /** The actual entries of the feed, in the order of the versions. */
  readonly entries?: (feed: Feed) => Effect.Effect<ReadonlyArray<Entry>, unknown>
  /** Makes the sink answer `EventFailed` for the event until the scope closes. */
  readonly failing?: (feed: Feed, eventId: EventId.EventId) => Effect.Effect<void, unknown, Scope.Scope>
  /** Makes the sink answer `EventRejected` for the event until the scope closes. */
  readonly rejecting?: (feed: Feed, eventId: EventId.EventId) => Effect.Effect<void, unknown, Scope.Scope>
}

/**
 * An event in the feed.
 *
 * @since 0.1.0
 * @category models
 */
export interface Entry {
  readonly eventId: string
  readonly version: number
  /** The event's JSON text as the feed carries it, with or without its control version. */
  readonly payload: string
}

/**
 * What a harness may omit and laws may need.
 *
 * @since 0.1.0
 * @category models
 */
export type Hook = "entries" | "failing" | "rejecting"

/**
 * @since 0.1.0
 * @category models
 */
export interface Law {
  readonly name: string
  /** The hooks without which the law cannot be checked. */
  readonly needs: ReadonlyArray<Hook>
  /** Checks the law on a feed of its own. Also fails if the harness lacks a hook that the law needs. */
  readonly run: <Feed>(harness: Harness<Feed>) => Effect.Effect<void, ConformanceFailure>
}

/**
 * The sink broke a law, or the harness failed (`cause`).
 *
 * @since 0.1.0
 * @category errors
 */
export class ConformanceFailure extends Schema.TaggedError<ConformanceFailure>("controlpublish/ConformanceFailure")(
  "ConformanceFailure",
  {
    law: Schema.String,
    message: Schema.String,
    cause: Schema.optionalWith(Schema.Defect, { exact: true })
  }
) {}

export type Events = Arr.NonEmptyReadonlyArray<OutboundEvent>

/** Publishes with a deadline, in one minute by default. */
export type Publish = (events: Events, deadline?: number) => Effect.Effect<ReadonlyArray<Outcome>, SinkUnavailable>

export interface Subject {
  /** Builds the sink, uses it and closes it. A second session is a restart. */
  readonly session: <A, E>(use: (publish: Publish) => Effect.Effect<A, E>) => Effect.Effect<A, unknown>
  readonly entries: Effect.Effect<ReadonlyArray<Entry>, unknown>
  /** Runs an effect while the sink answers this for the event. */
  readonly during: <A, E>(
    hook: "failing" | "rejecting",
    eventId: EventId.EventId,
    effect: Effect.Effect<A, E>
  ) => Effect.Effect<A, unknown>
}

export const law = (
  name: string,
  needs: ReadonlyArray<Hook>,
  body: (subject: Subject) => Effect.Effect<void, unknown>
): Law => ({
  name,
  needs,
  run: (harness) =>
    Effect.gen(function* () {
      const feed = yield* harness.empty
      yield* body({
        session: (use) =>
          Effect.flatMap(Sink, (sink) =>
            use((events, deadline) =>
              Effect.flatMap(Clock.currentTimeMillis, (now) =>
                sink.publish({ events, deadline: deadline ?? now + 60_000 })
              )
            )
          ).pipe(Effect.provide(Layer.fresh(harness.layer(feed)))),
        entries: harness.entries?.(feed) ?? missing("entries"),
        during: (hook, eventId, effect) =>
          Effect.scoped(Effect.zipRight(harness[hook]?.(feed, eventId) ?? missing(hook), effect))
      })
    }).pipe(
      Effect.scoped,
      Effect.mapError((error) =>
        error instanceof Broken
          ? new ConformanceFailure({ law: name, message: error.message })
          : new ConformanceFailure({ law: name, message: "The sink or its harness failed", cause: error })
      )
    )
})
