/**
 * The laws of sources, as a list for any test runner.
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
 * @since 0.1.0
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { check } from "./internal/broken.js"
import {
  expectEvents,
  expectFailure,
  expectReason,
  follow,
  ids,
  inTime,
  last,
  patienceForInterruption,
  read
} from "./internal/sourceExpectations.js"
import { law, type Appended, type Harness, type Hook, type Law } from "./internal/sourceHarness.js"

export {
  /** @since 0.1.0 */
  ConformanceFailure,
  /** @since 0.1.0 */
  type Harness,
  /** @since 0.1.0 */
  type Hook,
  /** @since 0.1.0 */
  type Law
} from "./internal/sourceHarness.js"

/**
 * Gives the harness its type.
 *
 * @since 0.1.0
 * @category constructors
 */
export const harness = <Feed>(options: Harness<Feed>): Harness<Feed> => options

/**
 * The hooks that the law needs and the harness lacks. Skip the law if there are any.
 *
 * @since 0.1.0
 * @category combinators
 */
export const missingHooks = <Feed>(law: Law, harness: Harness<Feed>): ReadonlyArray<Hook> =>
  law.needs.filter((hook) => harness[hook] === undefined)

/**
 * Every law, in the order of `Source`'s promises.
 *
 * @since 0.1.0
 * @category laws
 */
export const sourceConformance: ReadonlyArray<Law> = [
  law("streams every event as it was appended, in the order of the versions", [], ({ append, session }) =>
    Effect.gen(function* () {
      const appended = [...(yield* append(ids(1, 3))), ...(yield* append(ids(4, 700)))]
      yield* session((source) => Effect.flatMap(read(source, 0, 700), (found) => expectEvents(found, appended)))
    })
  ),

  law("carries the exact text of an event, with at most the control version added", [], ({ appendTexts, session }) =>
    Effect.gen(function* () {
      const text = `{ "type":"x",\t"big":12345678901234567890, "float":1.0, "text":"é\\u00e9 } 💥", "event_id":"e1" }`
      const appended = yield* appendTexts([text])
      yield* session((source) => Effect.flatMap(read(source, 0, 1), (found) => expectEvents(found, appended)))
    })
  ),

  law("starts after any position", [], ({ append, session }) =>
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

  law("continues with new events", [], ({ append, session }) =>
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

  law("waits in an empty feed", [], ({ append, session }) =>
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

  law("streams the same events again, to any number of readers, even after a restart", [], ({ append, session }) =>
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

  law("streams the same events again after they were acknowledged", [], ({ append, session }) =>
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
        // A feed may get its identity with its first event.
        yield* check(
          before.identity === "" || after.identity === before.identity,
          () => `Expected one feed, got ${before.identity} and then ${after.identity}`
        )
        const again = yield* session((source) => source.look)
        yield* check(
          again.identity === after.identity,
          () => `Expected one feed, got ${after.identity} and then ${again.identity}`
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

  law("fails if the feed ends before the position", [], ({ append, session }) =>
    Effect.gen(function* () {
      const appended = yield* append(ids(1, 3))
      yield* session((source) => expectFailure(source, last(appended) + 1, "beyond"))
    })
  ),

  law("fails if events after the position were removed", ["removeUpTo"], ({ append, removeUpTo, session }) =>
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

  law("fails if every event after the position was removed", ["removeUpTo"], ({ append, removeUpTo, session }) =>
    Effect.gen(function* () {
      const appended = yield* append(ids(1, 4))
      yield* removeUpTo(last(appended))
      yield* session((source) => expectFailure(source, appended[1]!.version, "gap"))
    })
  ),

  law("distinguishes a feed that replaced another", ["replace"], ({ append, replace, session }) =>
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
          before.identity !== "" && before.identity !== after.identity && after.newest === 5,
          () => `Expected another feed with 5 events, got ${JSON.stringify([before, after])}`
        )
      })
    )
  ),

  law("stops at text that is no event, after the events before it", ["spoil"], ({ append, session, spoil }) =>
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

  law("fails while the feed is unreachable, and continues afterwards", ["sever"], ({ append, session, severed }) =>
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
