/**
 * What a node has applied, in memory, for tests.
 *
 * Effects run in no transaction here: what one did before it failed stays. Mark and cursor behave as in PostgreSQL.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { AppliedEvents, MarksPruned, type Aside, type Cursor, type Delivery } from "../fleet/AppliedEvents.js"

interface Mark {
  /** The feed that the version belongs to. */
  readonly feed: string | undefined
  /** `undefined` for what a snapshot held before the feed did. */
  readonly version: number | undefined
  readonly at: number
  readonly setAside: string | undefined
}

/**
 * Makes an empty store.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: Effect.Effect<AppliedEvents["Type"]> = Effect.gen(function* () {
  const marks = new Map<string, Mark>()
  const one = yield* Effect.makeSemaphore(1)
  let cursor: Cursor = { feed: "", position: 0 }
  let markedAfter = 0

  const move = ({ feed, version }: Delivery) => {
    cursor = { feed, position: Math.max(cursor.position, version) }
  }

  const mark = (event: Delivery, setAside: string | undefined) =>
    Effect.map(Clock.currentTimeMillis, (at) => {
      marks.set(event.eventId, { feed: event.feed, version: event.version, at, setAside })
      move(event)
    })

  /** A marked event comes again. */
  const copy = (event: Delivery) => {
    const { eventId, feed, version } = event
    const known = marks.get(eventId)
    // A copy in another feed: from now on the mark is as old as the copy.
    if (known !== undefined && known.feed !== feed) marks.set(eventId, { ...known, feed, version })
    move(event)
  }

  const unlessMarked = <A, E, R>(event: Delivery, effect: Effect.Effect<A, E, R>) =>
    one.withPermits(1)(
      Effect.suspend((): Effect.Effect<A | "skipped", E, R> => {
        if (!marks.has(event.eventId)) return effect
        copy(event)
        return Effect.succeed("skipped")
      })
    )

  const applyOnce = <A, E, R>(event: Delivery, effect: Effect.Effect<A, E, R>) =>
    unlessMarked(event, Effect.as(Effect.zipRight(effect, mark(event, undefined)), "applied" as const))

  return AppliedEvents.of({
    cursor: Effect.sync(() => cursor),
    isApplied: (eventId) => Effect.sync(() => marks.has(eventId)),
    applyOnce,
    applyAll: (events, effect) =>
      one.withPermits(1)(
        Effect.gen(function* () {
          const ids = new Set<string>(marks.keys())
          const outcomes = events.map(({ eventId }) => {
            const isFresh = !ids.has(eventId)
            ids.add(eventId)
            return isFresh ? "applied" : "skipped"
          })
          const fresh = outcomes.flatMap((outcome, index) => (outcome === "applied" ? [index] : []))
          if (fresh.length > 0) yield* effect(fresh)
          yield* Effect.forEach(events, (event, index) =>
            outcomes[index] === "applied" ? mark(event, undefined) : Effect.sync(() => copy(event))
          )
          return outcomes
        })
      ),
    isTransactional: false,
    setAside: (event, reason) => unlessMarked(event, Effect.as(mark(event, reason), "setAside" as const)),
    asides: (options) =>
      Effect.sync(() =>
        Array.from(marks, ([eventId, { at, setAside, version }]): ReadonlyArray<Aside> =>
          setAside === undefined || version === undefined ? [] : [{ eventId, version, reason: setAside, at }]
        )
          .flat()
          .sort((one, other) => other.at - one.at)
          .slice(0, options?.limit ?? 100)
      ),
    start: ({ feed, pending = [], position }, effect) =>
      one.withPermits(1)(
        Effect.tap(effect, () =>
          Effect.map(Clock.currentTimeMillis, (at) => {
            for (const [eventId, mark] of marks) {
              if (mark.feed !== feed || mark.version === undefined || mark.version > position) marks.delete(eventId)
            }
            for (const eventId of pending) {
              if (!marks.has(eventId))
                marks.set(eventId, { feed: undefined, version: undefined, at, setAside: undefined })
            }
            cursor = { feed, position }
            markedAfter = position
          })
        )
      ),
    seek: ({ feed, position }) =>
      one.withPermits(1)(
        Effect.suspend(() => {
          if (position < markedAfter || (markedAfter > 0 && feed !== cursor.feed)) {
            return new MarksPruned({ position, markedAfter })
          }
          const isOther = cursor.feed !== "" && cursor.feed !== feed
          if (isOther || position > cursor.position) markedAfter = position
          cursor = { feed, position }
          return Effect.void
        })
      ),
    adopt: (feed) =>
      one.withPermits(1)(
        Effect.sync(() => {
          if (cursor.feed !== "") return
          cursor = { ...cursor, feed }
          for (const [eventId, mark] of marks) if (mark.feed === "") marks.set(eventId, { ...mark, feed })
        })
      ),
    prune: ({ keep, limit = 10_000, olderThan }) =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        const before = now - Duration.toMillis(olderThan)
        const pruned = Array.from(marks, ([eventId, mark]) => ({ eventId, ...mark, version: mark.version ?? Infinity }))
          .filter(({ at, feed, setAside, version }) => {
            return feed === cursor.feed && setAside === undefined && version <= cursor.position - keep && at < before
          })
          .sort((one, other) => one.version - other.version)
          .slice(0, limit)
        for (const { eventId, version } of pruned) {
          marks.delete(eventId)
          markedAfter = Math.max(markedAfter, version)
        }
        return pruned.length
      })
  })
})

/**
 * Provides an empty store: nothing is applied.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<AppliedEvents> = Layer.effect(AppliedEvents, make)
