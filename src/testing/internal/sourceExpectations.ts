import * as Chunk from "effect/Chunk"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import * as Stream from "effect/Stream"
import * as ControlEvent from "../../ControlEvent.js"
import * as ControlVersion from "../../ControlVersion.js"
import { SourceError, type FeedEvent, type Position, type Source } from "../../fleet/Source.js"
import { Broken, check } from "./broken.js"
import { patience, type Appended } from "./sourceHarness.js"

export const ids = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, n) => `e${from + n}`)

/** How long a source may take to release a reader. */
export const patienceForInterruption = "5 seconds"

export const inTime = <A, E, R>(what: string, effect: Effect.Effect<A, E, R>, limit?: Duration.DurationInput) =>
  Effect.flatMap(FiberRef.get(patience), (patience) =>
    Effect.timeoutFail(effect, {
      duration: limit ?? patience,
      onTimeout: () => new Broken(`Expected ${what} within ${Duration.format(limit ?? patience)}`)
    })
  )

/** Reads so many events. */
export const read = (source: Source["Type"], after: Position, count: number) =>
  source
    .events(after)
    .pipe(Stream.take(count), Stream.runCollect, Effect.map(Chunk.toReadonlyArray), (events) =>
      inTime(`${count} events after ${after}`, events)
    )

export const describe = (events: ReadonlyArray<{ readonly version: number; readonly text: string }>): string =>
  events.map(({ text, version }) => `${version} ${/"event_id":"([^"]*)"/.exec(text)?.[1] ?? ""}`).join(", ")

export const isText = (found: string, { text, version }: Appended): boolean =>
  found === text || found === ControlEvent.withControlVersion(text, ControlVersion.make(version))

export const expectEvents = (
  found: ReadonlyArray<FeedEvent>,
  expected: ReadonlyArray<Appended>
): Effect.Effect<void, Broken> =>
  check(
    found.length === expected.length &&
      found.every(({ text, version }, index) => {
        const appended = expected[index]!
        return version === appended.version && isText(text, appended)
      }),
    () => `Expected [${describe(expected)}], got [${describe(found)}]`
  )

/** Reads until the expected failure. */
export const failureOf = (source: Source["Type"], after: Position): Effect.Effect<SourceError, Broken> =>
  inTime("a SourceError", Effect.either(Stream.runDrain(source.events(after)))).pipe(
    Effect.flatMap((result) =>
      Either.isLeft(result) ? Effect.succeed(result.left) : Effect.fail(new Broken("Expected a SourceError, it ended"))
    )
  )

export const expectReason = (error: SourceError, reason: SourceError["reason"]) =>
  check(
    error instanceof SourceError && error.reason === reason && error.message !== "",
    () => `Expected a SourceError of the reason "${reason}", got ${String(error)}`
  )

export const expectFailure = (source: Source["Type"], after: Position, reason: SourceError["reason"]) =>
  Effect.flatMap(failureOf(source, after), (error) => expectReason(error, reason))

/** Reads in the background, and waits for the first events. */
export const follow = (source: Source["Type"], after: Position, first: number) =>
  Effect.gen(function* () {
    const events: Array<FeedEvent> = []
    const reached = yield* Deferred.make<void>()
    const fiber = yield* source.events(after).pipe(
      Stream.runForEach((event) =>
        Effect.suspend(() => {
          events.push(event)
          return events.length === first ? Deferred.succeed(reached, undefined) : Effect.void
        })
      ),
      Effect.forkScoped
    )
    yield* inTime(`${first} events after ${after}`, Effect.raceFirst(Deferred.await(reached), Fiber.join(fiber)))
    return { events, fiber }
  })

export const last = (events: ReadonlyArray<Appended>): number => events[events.length - 1]?.version ?? 0
