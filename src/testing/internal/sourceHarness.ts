import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { Source, type Position } from "../../fleet/Source.js"
import { Broken, missing } from "./broken.js"

/**
 * How the laws access a source. A `Feed` is whatever names one feed: a directory, a stream, a built context.
 *
 * @since 0.1.0
 * @category models
 */
export interface Harness<Feed> {
  /** Makes an empty feed for one law. */
  readonly empty: Effect.Effect<Feed, unknown, Scope.Scope>
  /** The source on a feed. Built again on the same feed it is that source after a restart. */
  readonly layer: (feed: Feed) => Layer.Layer<Source, unknown>
  /** Appends events, given as JSON text without a control version, in this order, and returns their versions. */
  readonly append: (feed: Feed, texts: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<number>, unknown>
  /** Removes the events up to a version from the feed, as its retention does. Only for feeds that must report it. */
  readonly removeUpTo?: (feed: Feed, version: Position) => Effect.Effect<void, unknown>
  /** Replaces the feed by an empty one, whose versions begin again. */
  readonly replace?: (feed: Feed) => Effect.Effect<void, unknown>
  /** Adds something to the feed that is no event. */
  readonly spoil?: (feed: Feed) => Effect.Effect<void, unknown>
  /** Makes the feed unreachable until the scope closes. */
  readonly sever?: (feed: Feed) => Effect.Effect<void, unknown, Scope.Scope>
  /** How long the source may take for what it must do at once. Default 20 seconds. */
  readonly patience?: Duration.DurationInput
}

/**
 * What a harness may omit and laws may need.
 *
 * @since 0.1.0
 * @category models
 */
export type Hook = "removeUpTo" | "replace" | "spoil" | "sever"

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
 * The source broke a law, or the harness failed (`cause`).
 *
 * @since 0.1.0
 * @category errors
 */
export class ConformanceFailure extends Schema.TaggedError<ConformanceFailure>(
  "controlpublish/SourceConformanceFailure"
)("ConformanceFailure", {
  law: Schema.String,
  message: Schema.String,
  cause: Schema.optionalWith(Schema.Defect, { exact: true })
}) {}

export type Subject = {
  /** Builds the source, uses it and closes it. A second session is a restart. */
  readonly session: <A, E>(
    use: (source: Source["Type"]) => Effect.Effect<A, E, Scope.Scope>
  ) => Effect.Effect<A, unknown>
  /** Appends events with these ids. */
  readonly append: (ids: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<Appended>, unknown>
  readonly appendTexts: (texts: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<Appended>, unknown>
  readonly removeUpTo: (version: Position) => Effect.Effect<void, unknown>
  readonly replace: Effect.Effect<void, unknown>
  readonly spoil: Effect.Effect<void, unknown>
  /** Runs an effect while the feed is unreachable. */
  readonly severed: <A, E>(effect: Effect.Effect<A, E>) => Effect.Effect<A, unknown>
}

export interface Appended {
  readonly version: number
  readonly text: string
}

const textOf = (id: string) => JSON.stringify({ event_id: id, type: "conformance.checked" })

/** How long a source may take for what it must do at once. */
export const patience = FiberRef.unsafeMake<Duration.DurationInput>("20 seconds")

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
      const appendTexts = (texts: ReadonlyArray<string>) =>
        Effect.map(harness.append(feed, texts), (versions) =>
          texts.map((text, index) => ({ text, version: versions[index]! }))
        )
      yield* body({
        session: (use) =>
          Effect.flatMap(Source, use).pipe(Effect.scoped, Effect.provide(Layer.fresh(harness.layer(feed)))),
        appendTexts,
        append: (ids) => appendTexts(ids.map(textOf)),
        removeUpTo: (version) => harness.removeUpTo?.(feed, version) ?? missing("removeUpTo"),
        replace: harness.replace?.(feed) ?? missing("replace"),
        spoil: harness.spoil?.(feed) ?? missing("spoil"),
        severed: (effect) => Effect.scoped(Effect.zipRight(harness.sever?.(feed) ?? missing("sever"), effect))
      })
    }).pipe(
      Effect.scoped,
      // Sources work in real time, also in tests that have stopped the clock.
      Effect.withClock(Clock.make()),
      Effect.locally(patience, harness.patience ?? "20 seconds"),
      Effect.mapError((error) =>
        error instanceof Broken
          ? new ConformanceFailure({ law: name, message: error.message })
          : new ConformanceFailure({ law: name, message: "The source or its harness failed", cause: error })
      )
    )
})
