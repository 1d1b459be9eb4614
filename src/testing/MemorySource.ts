/**
 * A source in memory, for tests, and the feed that it reads.
 *
 * @since 0.1.0
 */
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import type { ControlEvent } from "../ControlEvent.js"
import type { ControlVersion } from "../ControlVersion.js"
import { beyond, Source, SourceError, type FeedEvent, type Position } from "../fleet/Source.js"

/**
 * What tests can see and do beyond the source.
 *
 * @since 0.1.0
 * @category models
 */
export class MemorySource extends Context.Tag("controlpublish/testing/MemorySource")<
  MemorySource,
  {
    /** Appends events, or text that is none, and returns their versions: 1, 2, 3, … */
    readonly append: (events: ReadonlyArray<ControlEvent | string>) => Effect.Effect<ReadonlyArray<ControlVersion>>
    /** The acknowledged versions, repeated ones included. */
    readonly acknowledged: Effect.Effect<ReadonlyArray<ControlVersion>>
    /** Makes the feed reachable or not. While it is not, readers fail with `unavailable`. */
    readonly setAvailable: (available: boolean) => Effect.Effect<void>
    /** Removes events up to a version: readers before it find a gap. */
    readonly removeUpTo: (version: Position) => Effect.Effect<void>
    /** Replaces the feed by an empty one, whose versions start at 1. */
    readonly replace: Effect.Effect<void>
  }
>() {}

/** Events that a reader gets at a time. */
const chunkSize = 100

const failure = (reason: SourceError["reason"], message: string) =>
  new SourceError({ source: "memory", reason, message })

const make = Effect.gen(function* () {
  let feeds = 1
  let events: Array<FeedEvent> = []
  let newest = 0
  let available = true
  const acknowledged: Array<ControlVersion> = []
  let changed = yield* Effect.makeLatch(false)

  // Waiters are woken, and wait for the next change by a new latch.
  const change = <A>(update: () => A): Effect.Effect<A> =>
    Effect.gen(function* () {
      const next = yield* Effect.makeLatch(false)
      const before = changed
      const result = update()
      changed = next
      yield* before.open
      return result
    })

  const reachable = Effect.suspend(() =>
    available ? Effect.void : failure("unavailable", "The memory source was told to be unavailable")
  )

  const oldest = () => events[0]?.version ?? newest + 1

  const check = (feed: number, position: Position): Effect.Effect<void, SourceError> =>
    Effect.suspend(() => {
      if (feed !== feeds) return failure("replaced", "The feed was replaced while it was read")
      if (newest < position) return beyond("memory", position, newest)
      return oldest() > position + 1
        ? failure("gap", `The feed goes on at ${oldest()} after ${position}: what was between was removed`)
        : Effect.void
    })

  const next = (feed: number, position: Position): Effect.Effect<ReadonlyArray<FeedEvent>, SourceError> =>
    Effect.gen(function* () {
      for (;;) {
        const { await: changes } = changed
        yield* reachable
        yield* check(feed, position)
        const first = position - newest + events.length
        const found = events.slice(first, first + chunkSize)
        if (found.length > 0) return found
        yield* changes
      }
    })

  const source = Source.of({
    name: "memory",
    inert: false,
    look: Effect.map(reachable, () => ({ identity: `memory-${feeds}`, newest, oldest: oldest() })),
    events: (after) =>
      Stream.suspend(() => {
        const feed = feeds
        return Stream.unfoldChunkEffect(after, (position) =>
          Effect.map(next(feed, position), (found) => {
            const last: Position = found[found.length - 1]!.version
            return [Chunk.unsafeFromArray(found), last] as const
          }).pipe(Effect.asSome)
        )
      }),
    acknowledge: (version) => Effect.map(reachable, () => void acknowledged.push(version))
  })

  const memory = MemorySource.of({
    append: (added) =>
      change(() =>
        added.map((event) => {
          const version = ++newest as ControlVersion
          events.push({
            version,
            text: typeof event === "string" ? event : JSON.stringify(event),
            traceparent: undefined
          })
          return version
        })
      ),
    acknowledged: Effect.sync(() => acknowledged.slice()),
    setAvailable: (value) =>
      change(() => {
        available = value
      }),
    removeUpTo: (version) =>
      change(() => {
        events = events.filter((event) => event.version > version)
      }),
    replace: change(() => {
      feeds++
      events = []
      newest = 0
    })
  })
  return Context.make(Source, source).pipe(Context.add(MemorySource, memory))
})

/**
 * Provides a source in memory, with an empty feed each time the layer is built.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<Source | MemorySource> = Layer.effectContext(make)
