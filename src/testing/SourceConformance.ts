/**
 * The laws that every source keeps, as a list for any test runner.
 *
 * @example
 * import { it } from "@effect/vitest"
 * import { Context, Effect, Layer } from "effect"
 * import { MemorySource, SourceConformance } from "controlpublish/testing"
 *
 * const harness = SourceConformance.harness({
 *   empty: Layer.build(MemorySource.layer),
 *   layer: (feed) => Layer.succeedContext(feed),
 *   append: (feed, texts) => Context.get(feed, MemorySource.MemorySource).append(texts)
 * })
 *
 * for (const law of SourceConformance.sourceConformance) {
 *   it.live.skipIf(SourceConformance.missingHooks(law, harness).length > 0)(law.name, () => law.run(harness))
 * }
 *
 * @since 1.0.0
 */
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as ControlEvent from "../ControlEvent.js"
import * as ControlVersion from "../ControlVersion.js"
import { Source, SourceError, type FeedEvent, type Position } from "../fleet/Source.js"

/**
 * How the laws get at a source. A `Feed` is whatever names one feed: a directory, a stream, a built context.
 *
 * @since 1.0.0
 * @category models
 */
export interface Harness<Feed> {
  /** A feed with nothing in it, of the law's own. */
  readonly empty: Effect.Effect<Feed, unknown, Scope.Scope>
  /** The source on a feed. Built again on the same feed it is that source after a restart. */
  readonly layer: (feed: Feed) => Layer.Layer<Source, unknown>
  /** Appends events, given as JSON text without a control version, in this order, and answers their versions. */
  readonly append: (feed: Feed, texts: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<number>, unknown>
  /** Removes the events up to a version from the feed, as its retention does, where readers have to be told. */
  readonly removeUpTo?: (feed: Feed, version: Position) => Effect.Effect<void, unknown>
  /** Puts an empty feed in the place of this one: its versions begin again. */
  readonly replace?: (feed: Feed) => Effect.Effect<void, unknown>
  /** Puts something into the feed that is no event. */
  readonly spoil?: (feed: Feed) => Effect.Effect<void, unknown>
  /** Makes the feed unreachable until the scope closes. */
  readonly sever?: (feed: Feed) => Effect.Effect<void, unknown, Scope.Scope>
  /** How long the source may take for what it has to do at once. Default 20 seconds. */
  readonly patience?: Duration.DurationInput
}

/**
 * What a harness may leave out, and laws may need.
 *
 * @since 1.0.0
 * @category models
 */
export type Hook = "removeUpTo" | "replace" | "spoil" | "sever"

/**
 * @since 1.0.0
 * @category models
 */
export interface Law {
  readonly name: string
  /** The hooks without which the law cannot be checked. */
  readonly needs: ReadonlyArray<Hook>
  /** Checks the law on a feed of its own. Fails as well where the harness lacks a hook that the law needs. */
  readonly run: <Feed>(harness: Harness<Feed>) => Effect.Effect<void, ConformanceFailure>
}

/**
 * The source broke a law, or the harness failed (`cause`).
 *
 * @since 1.0.0
 * @category errors
 */
export class ConformanceFailure extends Schema.TaggedError<ConformanceFailure>(
  "controlpublish/SourceConformanceFailure"
)("ConformanceFailure", {
  law: Schema.String,
  message: Schema.String,
  cause: Schema.optionalWith(Schema.Defect, { exact: true })
}) {}

/**
 * Gives the harness its type.
 *
 * @since 1.0.0
 * @category constructors
 */
export const harness = <Feed>(options: Harness<Feed>): Harness<Feed> => options

/**
 * The hooks for want of which the law has to be skipped.
 *
 * @since 1.0.0
 * @category combinators
 */
export const missingHooks = <Feed>(law: Law, harness: Harness<Feed>): ReadonlyArray<Hook> =>
  law.needs.filter((hook) => harness[hook] === undefined)

// -----------------------------------------------------------------------------
// internal
// -----------------------------------------------------------------------------

type Subject = {
  /** Builds the source, uses it and closes it: a second session is a restart. */
  readonly session: <A, E>(
    use: (source: Source["Type"]) => Effect.Effect<A, E, Scope.Scope>
  ) => Effect.Effect<A, unknown>
  /** Appends events with these ids. */
  readonly append: (ids: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<Appended>, unknown>
  readonly appendTexts: (texts: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<Appended>, unknown>
  readonly removeUpTo: (version: Position) => Effect.Effect<void, unknown>
  readonly replace: Effect.Effect<void, unknown>
  readonly spoil: Effect.Effect<void, unknown>
  /** Runs an effect while the feed cannot be reached. */
  readonly severed: <A, E>(effect: Effect.Effect<A, E>) => Effect.Effect<A, unknown>
}

interface Appended {
  readonly version: number
  readonly text: string
}

class Broken {
  constructor(readonly message: string) {}
}

const check = (condition: boolean, message: () => string): Effect.Effect<void, Broken> =>
  condition ? Effect.void : Effect.fail(new Broken(message()))

const missing = (hook: Hook) => Effect.fail(new Broken(`The harness has no hook "${hook}"`))

const law = (
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

const textOf = (id: string) => JSON.stringify({ event_id: id, type: "conformance.checked" })

const ids = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, n) => `e${from + n}`)

/** How long a source may take for what it has to do at once. */
const patience = FiberRef.unsafeMake<Duration.DurationInput>("20 seconds")

/** How long a source may take to let go of a reader. */
const patienceForInterruption = "5 seconds"

const inTime = <A, E, R>(what: string, effect: Effect.Effect<A, E, R>, limit?: Duration.DurationInput) =>
  Effect.flatMap(FiberRef.get(patience), (patience) =>
    Effect.timeoutFail(effect, {
      duration: limit ?? patience,
      onTimeout: () => new Broken(`Expected ${what} within ${Duration.format(limit ?? patience)}`)
    })
  )

/** Reads so many events. */
const read = (source: Source["Type"], after: Position, count: number) =>
  source
    .events(after)
    .pipe(Stream.take(count), Stream.runCollect, Effect.map(Chunk.toReadonlyArray), (events) =>
      inTime(`${count} events after ${after}`, events)
    )

const describe = (events: ReadonlyArray<{ readonly version: number; readonly text: string }>): string =>
  events.map(({ text, version }) => `${version} ${/"event_id":"([^"]*)"/.exec(text)?.[1] ?? ""}`).join(", ")

const isText = (found: string, { text, version }: Appended): boolean =>
  found === text || found === ControlEvent.withControlVersion(text, ControlVersion.make(version))

const expectEvents = (
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

/** Reads until it fails, which it has to. */
const failureOf = (source: Source["Type"], after: Position): Effect.Effect<SourceError, Broken> =>
  inTime("a SourceError", Effect.either(Stream.runDrain(source.events(after)))).pipe(
    Effect.flatMap((result) =>
      Either.isLeft(result) ? Effect.succeed(result.left) : Effect.fail(new Broken("Expected a SourceError, it ended"))
    )
  )

const expectReason = (error: SourceError, reason: SourceError["reason"]) =>
  check(
    error instanceof SourceError && error.reason === reason && error.message !== "",
    () => `Expected a SourceError of the reason "${reason}", got ${String(error)}`
  )

const expectFailure = (source: Source["Type"], after: Position, reason: SourceError["reason"]) =>
  Effect.flatMap(failureOf(source, after), (error) => expectReason(error, reason))

/** Reads on in the background, and lets the first events be awaited. */
const follow = (source: Source["Type"], after: Position, first: number) =>
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

const last = (events: ReadonlyArray<Appended>): number => events[events.length - 1]?.version ?? 0

/**
 * Every law, in the order of `Source`'s promises.
 *
 * @since 1.0.0
 * @category laws
 */
export const sourceConformance: ReadonlyArray<Law> = [
  law("gives every event in the order of the versions, as it was appended", [], ({ append, session }) =>
    Effect.gen(function* () {
      const appended = [...(yield* append(ids(1, 3))), ...(yield* append(ids(4, 700)))]
      yield* session((source) => Effect.flatMap(read(source, 0, 700), (found) => expectEvents(found, appended)))
    })
  ),

  law("carries the exact text of an event, the control version added at most", [], ({ appendTexts, session }) =>
    Effect.gen(function* () {
      const text = `{ "type":"x",\t"big":12345678901234567890, "float":1.0, "text":"é\\u00e9 } 💥", "event_id":"e1" }`
      const appended = yield* appendTexts([text])
      yield* session((source) => Effect.flatMap(read(source, 0, 1), (found) => expectEvents(found, appended)))
    })
  ),

  law("begins after the position, whatever it is", [], ({ append, session }) =>
    Effect.gen(function* () {
      const appended = yield* append(ids(1, 10))
      yield* session((source) =>
        Effect.forEach(
          [0, 1, 5, 9],
          (skipped) =>
            Effect.flatMap(read(source, appended[skipped - 1]?.version ?? 0, 10 - skipped), (found) =>
              expectEvents(found, appended.slice(skipped))
            ),
          { discard: true }
        )
      )
    })
  ),

  law("goes on with new events", [], ({ append, session }) =>
    session((source) =>
      Effect.gen(function* () {
        const early = yield* append(ids(1, 2))
        const { events, fiber } = yield* follow(source, 0, 2)
        const late: Array<Appended> = []
        for (let n = 3; n <= 12; n++) {
          late.push(...(yield* append(ids(n, n))))
          yield* inTime(`event ${n}`, Effect.repeat(Effect.sleep("5 millis"), { until: () => events.length === n }))
        }
        yield* expectEvents(events, [...early, ...late])
        yield* Fiber.interrupt(fiber)
      })
    )
  ),

  law("waits where nothing is there yet", [], ({ append, session }) =>
    session((source) =>
      Effect.gen(function* () {
        const fiber = yield* Effect.forkScoped(read(source, 0, 1))
        yield* Effect.sleep("100 millis")
        yield* check(Option.isNone(yield* Fiber.poll(fiber)), () => "Expected it to wait for an event")
        const appended = yield* append(["e1"])
        yield* expectEvents(yield* Fiber.join(fiber), appended)
      })
    )
  ),

  law("gives the same events again, to any number of readers, also after a restart", [], ({ append, session }) =>
    Effect.gen(function* () {
      const appended = yield* append(ids(1, 50))
      yield* session((source) =>
        Effect.gen(function* () {
          const found = yield* Effect.all([read(source, 0, 50), read(source, 0, 50)], { concurrency: 2 })
          yield* expectEvents(found[0], appended)
          yield* expectEvents(found[1], appended)
          yield* expectEvents(yield* read(source, 0, 50), appended)
        })
      )
      yield* session((source) => Effect.flatMap(read(source, 0, 50), (found) => expectEvents(found, appended)))
    })
  ),

  law("gives the same events again after they were acknowledged", [], ({ append, session }) =>
    Effect.gen(function* () {
      const appended = yield* append(ids(1, 5))
      yield* session((source) =>
        Effect.gen(function* () {
          for (const { version } of yield* read(source, 0, 3)) yield* source.acknowledge(version)
          yield* expectEvents(yield* read(source, 0, 5), appended)
        })
      )
      yield* session((source) => Effect.flatMap(read(source, 0, 5), (found) => expectEvents(found, appended)))
    })
  ),

  law(
    "says what the newest event is and the oldest, and which feed it is, the same after a restart",
    [],
    ({ append, session }) =>
      Effect.gen(function* () {
        const before = yield* session((source) => source.look)
        yield* check(before.newest === 0, () => `Expected no event, the newest is ${before.newest}`)
        const appended = yield* append(ids(1, 3))
        const after = yield* session((source) => source.look)
        yield* check(
          after.newest === last(appended),
          () => `Expected ${last(appended)} to be the newest, got ${after.newest}`
        )
        yield* check(
          before.oldest === 1 && after.oldest === appended[0]?.version,
          () => `Expected 1 and ${appended[0]?.version} to be the oldest, got ${before.oldest} and ${after.oldest}`
        )
        yield* check(
          after.identity === before.identity,
          () => `Expected one feed, got ${before.identity} and then ${after.identity}`
        )
      })
  ),

  law("loses nothing while a reader is slow and a writer is not", [], ({ append, session }) =>
    session((source) =>
      Effect.gen(function* () {
        const early = yield* append(ids(1, 5))
        const reading = yield* source.events(0).pipe(
          Stream.take(605),
          Stream.tap(({ version }) => (version % 20 === 0 ? Effect.sleep("10 millis") : Effect.void)),
          Stream.runCollect,
          Effect.map(Chunk.toReadonlyArray),
          Effect.forkScoped
        )
        const late: Array<Appended> = []
        for (let n = 6; n <= 605; n += 100) late.push(...(yield* append(ids(n, n + 99))))
        yield* expectEvents(yield* inTime("605 events", Fiber.join(reading)), [...early, ...late])
      })
    )
  ),

  law("can be interrupted at any time, and read again", [], ({ append, session }) =>
    Effect.gen(function* () {
      const appended = yield* append(ids(1, 300))
      yield* session((source) =>
        Effect.gen(function* () {
          for (const millis of [0, 1, 2, 5, 10, 20, 50]) {
            const fiber = yield* Effect.fork(Stream.runDrain(source.events(0)))
            yield* Effect.sleep(millis)
            yield* inTime("a reader to end that is interrupted", Fiber.interrupt(fiber), patienceForInterruption)
          }
          yield* expectEvents(yield* read(source, 0, 300), appended)
        })
      )
    })
  ),

  law("fails where the feed ends before the position", [], ({ append, session }) =>
    Effect.gen(function* () {
      const appended = yield* append(ids(1, 3))
      yield* session((source) => expectFailure(source, last(appended) + 1, "beyond"))
    })
  ),

  law("fails where events after the position were removed", ["removeUpTo"], ({ append, removeUpTo, session }) =>
    Effect.gen(function* () {
      const appended = yield* append(ids(1, 6))
      yield* removeUpTo(appended[3]!.version)
      yield* session((source) =>
        Effect.gen(function* () {
          yield* expectFailure(source, appended[2]!.version, "gap")
          yield* expectEvents(yield* read(source, appended[3]!.version, 2), appended.slice(4))
        })
      )
    })
  ),

  law("fails where every event after the position was removed", ["removeUpTo"], ({ append, removeUpTo, session }) =>
    Effect.gen(function* () {
      const appended = yield* append(ids(1, 4))
      yield* removeUpTo(last(appended))
      yield* session((source) => expectFailure(source, appended[1]!.version, "gap"))
    })
  ),

  law("tells a feed that took the place of another", ["replace"], ({ append, replace, session }) =>
    session((source) =>
      Effect.gen(function* () {
        yield* append(ids(1, 3))
        const before = yield* source.look
        const { fiber } = yield* follow(source, 0, 3)
        yield* replace
        yield* append(ids(11, 15))
        const error = yield* inTime("a reader to fail whose feed was replaced", Effect.flip(Fiber.join(fiber)))
        yield* expectReason(error, "replaced")
        const after = yield* source.look
        yield* check(
          before.identity !== after.identity && after.newest === 5,
          () => `Expected another feed with 5 events, got ${JSON.stringify([before, after])}`
        )
      })
    )
  ),

  law("stops at what is no event, after those before it", ["spoil"], ({ append, session, spoil }) =>
    session((source) =>
      Effect.gen(function* () {
        yield* append(ids(1, 3))
        const { fiber } = yield* follow(source, 0, 3)
        yield* spoil
        const error = yield* inTime("a reader to fail at what is no event", Effect.flip(Fiber.join(fiber)))
        yield* expectReason(error, "malformed")
      })
    )
  ),

  law("fails while the feed cannot be reached, and reads on after it", ["sever"], ({ append, session, severed }) =>
    session((source) =>
      Effect.gen(function* () {
        const early = yield* append(ids(1, 3))
        const { events, fiber } = yield* follow(source, 0, 3)
        yield* severed(
          Effect.gen(function* () {
            const error = yield* inTime("a reader to fail that is cut off", Effect.flip(Fiber.join(fiber)))
            yield* expectReason(error, "unavailable")
            yield* expectReason(yield* Effect.flip(source.look), "unavailable")
          })
        )
        yield* expectEvents(events, early)
        const late = yield* append(ids(4, 6))
        yield* expectEvents(yield* read(source, last(early), 3), late)
      })
    )
  )
]
