/**
 * The laws of sinks, as a list for any test runner.
 *
 * @example
 * import { it } from "@effect/vitest"
 * import { Effect, Layer } from "effect"
 * import { Sink } from "controlpublish"
 * import { MemorySink, SinkConformance } from "controlpublish/testing"
 *
 * const harness = SinkConformance.harness({
 *   empty: Layer.build(MemorySink.layer),
 *   layer: (feed) => Layer.succeedContext(feed)
 * })
 *
 * for (const law of SinkConformance.sinkConformance) {
 *   it.effect.skipIf(SinkConformance.missingHooks(law, harness).length > 0)(law.name, () => law.run(harness))
 * }
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as ControlEvent from "../ControlEvent.js"
import * as ControlVersion from "../ControlVersion.js"
import * as EventId from "../EventId.js"
import type { Outcome } from "../Sink.js"
import { check } from "./internal/broken.js"
import {
  awkwardIds,
  describe,
  expectDuplicates,
  expectFeed,
  expectGrowing,
  expectGrowingPerKey,
  interleaved,
  outbound,
  publishAll,
  without
} from "./internal/sinkExpectations.js"
import { law, type Events, type Harness, type Hook, type Law, type Subject } from "./internal/sinkHarness.js"

export {
  /** @since 0.1.0 */
  ConformanceFailure,
  /** @since 0.1.0 */
  type Entry,
  /** @since 0.1.0 */
  type Harness,
  /** @since 0.1.0 */
  type Hook,
  /** @since 0.1.0 */
  type Law
} from "./internal/sinkHarness.js"

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

const stopsItsKey = (hook: "failing" | "rejecting", tag: Outcome["_tag"]) =>
  Effect.fnUntraced(function* ({ during, entries, session }: Subject) {
    const events = interleaved(["a", "b"], 1, 4)
    const expected = events.map(({ eventId, orderingKey }) => {
      if (eventId === "a2") return tag
      return orderingKey === "b" || eventId === "a1" ? "Published" : "NotAttempted"
    })
    yield* session((publish) =>
      Effect.gen(function* () {
        const outcomes = yield* during(hook, EventId.make("a2"), publish(events))
        yield* check(
          outcomes.map((outcome) => outcome._tag).join() === expected.join(),
          () => `Expected ${expected.join(", ")}, got: ${describe(outcomes)}`
        )
        const versions = outcomes.flatMap((outcome) => (outcome._tag === "Published" ? [outcome.version] : []))
        const stored = without(events, outcomes)
        yield* expectFeed(yield* entries, stored, versions)
        // Once the event can be published, what waited behind it follows it.
        const rest = interleaved(["a"], 2, 4)
        const later = yield* publishAll(publish, rest)
        yield* expectGrowing(later)
        yield* expectFeed(yield* entries, [...stored, ...rest], [...versions, ...later])
      })
    )
  })

/** Not the program's clock, which tests may have stopped: sinks work in real time. */
const sleep = (millis: number) => Effect.withClock(Effect.sleep(millis), Clock.make())

/**
 * Every law, in the order of `Sink`'s promises.
 *
 * @since 0.1.0
 * @category laws
 */
export const sinkConformance: ReadonlyArray<Law> = [
  law("returns an outcome for each event, at its index", [], ({ session }) =>
    session((publish) =>
      Effect.gen(function* () {
        const events = interleaved(["a", "b", "c"], 1, 5)
        const versions = yield* publishAll(publish, events)
        yield* check(
          versions.every((version) => ControlVersion.is(version)),
          () => `Expected positive safe integers, got: ${versions.join(", ")}`
        )
        yield* check(
          new Set(versions).size === events.length,
          () => `Expected a version for each event, got: ${versions.join(", ")}`
        )
      })
    )
  ),

  law("returns growing versions in the order of a key, and across batches", [], ({ session }) =>
    session((publish) =>
      Effect.gen(function* () {
        const batches = [interleaved(["a", "b"], 1, 20), interleaved(["b", "a"], 21, 21), interleaved(["a"], 22, 30)]
        let highest = 0
        for (const events of batches) {
          const versions = yield* publishAll(publish, events)
          yield* expectGrowingPerKey(events, versions)
          yield* expectGrowing([highest, Math.min(...versions)])
          highest = Math.max(...versions)
        }
      })
    )
  ),

  law("returns different versions for concurrent batches", [], ({ session }) =>
    session((publish) =>
      Effect.gen(function* () {
        const batches = ["a", "b", "c", "d"].map((key) => interleaved([key], 1, 10))
        const answers = yield* Effect.forEach(batches, (events) => publishAll(publish, events), {
          concurrency: "unbounded"
        })
        yield* Effect.forEach(answers, expectGrowing, { discard: true })
        yield* check(
          new Set(answers.flat()).size === 40,
          () => `Expected 40 different versions, got: ${answers.flat().join(", ")}`
        )
      })
    )
  ),

  law("returns the first version for an id twice in a batch", [], ({ session }) =>
    session((publish) =>
      Effect.gen(function* () {
        const [first, again, other] = yield* publish([outbound("a1", "a"), outbound("a1", "a"), outbound("a2", "a")])
        yield* check(
          first?._tag === "Published" && !first.duplicate && other?._tag === "Published" && !other.duplicate,
          () => "Expected both events to be published"
        )
        yield* expectDuplicates(first?._tag === "Published" ? [first.version] : [], again === undefined ? [] : [again])
      })
    )
  ),

  law("returns the first version for an id of an earlier batch, and publishes new events", [], ({ session }) =>
    session((publish) =>
      Effect.gen(function* () {
        const versions = yield* publishAll(publish, interleaved(["a", "b"], 1, 3))
        const outcomes = yield* publish(interleaved(["a", "b"], 1, 5))
        yield* expectDuplicates(versions, outcomes.slice(0, 6))
        yield* check(
          outcomes.length === 10 &&
            outcomes.slice(6).every((outcome) => outcome._tag === "Published" && !outcome.duplicate),
          () => `Expected four new events after six duplicates, got: ${describe(outcomes)}`
        )
      })
    )
  ),

  law("returns the first version for an id from before a restart, and growing ones after it", [], ({ session }) =>
    Effect.gen(function* () {
      const before = interleaved(["a", "b"], 1, 3)
      const versions = yield* session((publish) => publishAll(publish, before))
      yield* session((publish) =>
        Effect.gen(function* () {
          const later = yield* publishAll(publish, interleaved(["a"], 4, 5))
          yield* expectGrowing([Math.max(...versions), ...later])
          yield* expectDuplicates(versions, yield* publish(before))
        })
      )
    })
  ),

  law("keeps awkward ids apart", [], ({ session }) =>
    Effect.gen(function* () {
      const [id, ...ids] = awkwardIds
      const events: Events = [outbound(id, "a"), ...ids.map((id) => outbound(id, "a"))]
      const versions = yield* session((publish) => publishAll(publish, events))
      yield* expectGrowing(versions)
      yield* session((publish) => Effect.flatMap(publish(events), (outcomes) => expectDuplicates(versions, outcomes)))
    })
  ),

  law("has each event in the feed once, with the version it returned", ["entries"], ({ entries, session }) =>
    Effect.gen(function* () {
      const [id, ...ids] = awkwardIds
      const batches: ReadonlyArray<Events> = [
        interleaved(["k", "l"], 1, 10),
        [outbound(id, ""), ...ids.map((id) => outbound(id, "k"))],
        interleaved(["l", "m"], 11, 12)
      ]
      const versions = yield* Effect.forEach(batches, (events) =>
        session((publish) => Effect.zipLeft(publishAll(publish, events), publish(events)))
      )
      yield* expectFeed(yield* entries, batches.flat(), versions.flat())
    })
  ),

  law(
    "carries the exact text of an event, with at most the control version added",
    ["entries"],
    ({ entries, session }) =>
      Effect.gen(function* () {
        const payload = `{ "type":"x",\t"big":12345678901234567890, "float":1.0, "text":"é\\u00e9 } 💥",\n "event_id":"a1" }\n`
        const event = outbound("a1", "a", payload)
        const [version] = yield* session((publish) => publishAll(publish, [event]))
        const [entry] = yield* entries
        yield* check(
          entry?.payload === payload || entry?.payload === ControlEvent.withControlVersion(payload, version!),
          () => `Expected ${payload}, the feed holds ${entry?.payload}`
        )
      })
  ),

  law(
    "publishes nothing of a key after a failed event, and everything of other keys",
    ["entries", "failing"],
    stopsItsKey("failing", "EventFailed")
  ),

  law(
    "publishes nothing of a key after a rejected event, and everything of other keys",
    ["entries", "rejecting"],
    stopsItsKey("rejecting", "EventRejected")
  ),

  law("publishes nothing after the deadline", ["entries"], ({ entries, session }) =>
    session((publish) =>
      Effect.gen(function* () {
        const exit = yield* Effect.exit(publish(interleaved(["a", "b"], 1, 3), (yield* Clock.currentTimeMillis) - 1))
        yield* check(
          Exit.isFailure(exit) || exit.value.every((outcome) => outcome._tag === "NotAttempted"),
          () => `Expected no event to be attempted, got: ${describe(Exit.isSuccess(exit) ? exit.value : [])}`
        )
        yield* expectFeed(yield* entries, [], [])
      })
    )
  ),

  law("publishes each event once and in order, however often it is interrupted", ["entries"], ({ entries, session }) =>
    Effect.gen(function* () {
      const events = interleaved(["a", "b", "c"], 1, 30)
      yield* session((publish) =>
        Effect.forEach(
          [0, 1, 2, 3, 5, 8, 13, 21],
          (millis) =>
            Effect.gen(function* () {
              const fiber = yield* Effect.fork(publish(events))
              yield* sleep(millis)
              yield* Fiber.interrupt(fiber)
            }),
          { discard: true }
        )
      )
      const versions = yield* session((publish) =>
        Effect.gen(function* () {
          const versions = yield* publishAll(publish, events)
          yield* expectDuplicates(versions, yield* publish(events))
          return versions
        })
      )
      yield* expectGrowingPerKey(events, versions)
      yield* expectFeed(yield* entries, events, versions)
    })
  )
]
