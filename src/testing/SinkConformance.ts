/**
 * The laws that every sink keeps, as a list for any test runner.
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
 * @since 1.0.0
 */
import type * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as ControlEvent from "../ControlEvent.js"
import * as ControlVersion from "../ControlVersion.js"
import * as EventId from "../EventId.js"
import * as OrderingKey from "../OrderingKey.js"
import { Sink, type OutboundEvent, type Outcome, type SinkUnavailable } from "../Sink.js"

/**
 * How the laws get at a sink. A `Feed` is whatever names one feed: a directory, a stream, a built context.
 *
 * @since 1.0.0
 * @category models
 */
export interface Harness<Feed> {
  /** A feed with nothing in it, of the law's own. */
  readonly empty: Effect.Effect<Feed, unknown, Scope.Scope>
  /** The sink on a feed. Built again on the same feed it is that sink after a restart. */
  readonly layer: (feed: Feed) => Layer.Layer<Sink, unknown>
  /** What really is in the feed, in the order of the versions. */
  readonly entries?: (feed: Feed) => Effect.Effect<ReadonlyArray<Entry>, unknown>
  /** Makes the sink answer `EventFailed` for the event until the scope closes. */
  readonly failing?: (feed: Feed, eventId: EventId.EventId) => Effect.Effect<void, unknown, Scope.Scope>
  /** Makes the sink answer `EventRejected` for the event until the scope closes. */
  readonly rejecting?: (feed: Feed, eventId: EventId.EventId) => Effect.Effect<void, unknown, Scope.Scope>
}

/**
 * An event in the feed.
 *
 * @since 1.0.0
 * @category models
 */
export interface Entry {
  readonly eventId: string
  readonly version: number
  /** The event's JSON text as the feed carries it, with its control version or without. */
  readonly payload: string
}

/**
 * What a harness may leave out, and laws may need.
 *
 * @since 1.0.0
 * @category models
 */
export type Hook = "entries" | "failing" | "rejecting"

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
 * The sink broke a law, or the harness failed (`cause`).
 *
 * @since 1.0.0
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

type Events = Arr.NonEmptyReadonlyArray<OutboundEvent>

/** Publishes with a minute's time unless told the deadline. */
type Publish = (events: Events, deadline?: number) => Effect.Effect<ReadonlyArray<Outcome>, SinkUnavailable>

interface Subject {
  /** Builds the sink, uses it and closes it: a second session is a restart. */
  readonly session: <A, E>(use: (publish: Publish) => Effect.Effect<A, E>) => Effect.Effect<A, unknown>
  readonly entries: Effect.Effect<ReadonlyArray<Entry>, unknown>
  /** Runs an effect while the sink answers so for the event. */
  readonly during: <A, E>(
    hook: "failing" | "rejecting",
    eventId: EventId.EventId,
    effect: Effect.Effect<A, E>
  ) => Effect.Effect<A, unknown>
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

const outbound = (eventId: string, key: string, payload?: string): OutboundEvent => {
  const id = EventId.make(eventId)
  const event: ControlEvent.ControlEvent = { event_id: id, type: "conformance.checked", of: key }
  return {
    eventId: id,
    orderingKey: OrderingKey.make(key),
    event,
    payload: payload ?? JSON.stringify(event),
    traceparent: undefined,
    createdAt: 0,
    attemptCount: 0
  }
}

/** Events named `a1 b1 a2 b2 …`: as many of each key, one key after the other. */
const interleaved = (keys: Arr.NonEmptyReadonlyArray<string>, from: number, to: number): Events => {
  const events = Array.from({ length: to - from + 1 }, (_, n) =>
    keys.map((key) => outbound(`${key}${from + n}`, key))
  ).flat()
  return [events[0]!, ...events.slice(1)]
}

const describe = (outcomes: ReadonlyArray<Outcome>): string =>
  outcomes
    .map((outcome) =>
      outcome._tag === "Published" ? `${outcome.version}${outcome.duplicate ? " again" : ""}` : outcome._tag
    )
    .join(", ")

/** The versions of a batch that has to be published as a whole. */
const versionsOf = (
  events: Events,
  outcomes: ReadonlyArray<Outcome>
): Effect.Effect<ReadonlyArray<ControlVersion.ControlVersion>, Broken> => {
  const versions = outcomes.flatMap((outcome) => (outcome._tag === "Published" ? [outcome.version] : []))
  return Effect.as(
    check(
      versions.length === events.length && outcomes.length === events.length,
      () => `Expected ${events.length} events to be published, got: ${describe(outcomes)}`
    ),
    versions
  )
}

const publishAll = (publish: Publish, events: Events) =>
  Effect.flatMap(publish(events), (outcomes) => versionsOf(events, outcomes))

const expectDuplicates = (expected: ReadonlyArray<number>, outcomes: ReadonlyArray<Outcome>) =>
  check(
    outcomes.length === expected.length &&
      outcomes.every(
        (outcome, index) => outcome._tag === "Published" && outcome.duplicate && outcome.version === expected[index]
      ),
    () => `Expected duplicates of ${expected.join(", ")}, got: ${describe(outcomes)}`
  )

const expectGrowing = (versions: ReadonlyArray<number>) =>
  check(
    versions.every((version, index) => index === 0 || version > versions[index - 1]!),
    () => `Expected versions that grow, got: ${versions.join(", ")}`
  )

const expectGrowingPerKey = (events: ReadonlyArray<OutboundEvent>, versions: ReadonlyArray<number>) =>
  Effect.forEach(
    new Set(events.map((event) => event.orderingKey)),
    (key) => expectGrowing(versions.filter((_, index) => events[index]!.orderingKey === key)),
    { discard: true }
  )

/** The feed holds these events with these versions, and nothing else. */
const expectFeed = (
  entries: ReadonlyArray<Entry>,
  events: ReadonlyArray<OutboundEvent>,
  versions: ReadonlyArray<number>
) => {
  const line = (entry: Pick<Entry, "eventId" | "version">) => `${entry.version} ${entry.eventId}`
  const expected = events
    .map(({ eventId }, index) => ({ eventId, version: versions[index]! }))
    .sort((one, other) => one.version - other.version)
  return check(
    entries.map(line).join("\n") === expected.map(line).join("\n"),
    () => `Expected the feed to hold [${expected.map(line).join(", ")}], it holds [${entries.map(line).join(", ")}]`
  )
}

const without = (events: Events, outcomes: ReadonlyArray<Outcome>) =>
  events.filter((_, index) => outcomes[index]?._tag === "Published")

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

/** Ids that a careless encoding into a file name, a subject or a header takes for one another, or for something else. */
const awkwardIds: Arr.NonEmptyReadonlyArray<string> = [
  ".",
  "..",
  "...",
  "a/b",
  "a_b",
  "a\\b",
  "a b",
  "a%2Fb",
  "a%2fb",
  "/etc/passwd",
  "../a",
  "a.",
  "a",
  "A",
  " a",
  "a ",
  "a\n",
  "a\r\nNats-Msg-Id: b",
  "a.json",
  ".a",
  "~a",
  "*",
  ">",
  "a.*.>",
  "con",
  "é",
  "e\u0301",
  "日本",
  "💥",
  '"',
  "'",
  "{}",
  "null",
  "0",
  "00",
  "-",
  "--help",
  "x".repeat(1024),
  "x".repeat(1023),
  "X".repeat(1024),
  "é".repeat(512)
]

/** Not the clock of the program, which tests may have stopped: sinks work in real time. */
const sleep = (millis: number) => Effect.withClock(Effect.sleep(millis), Clock.make())

/**
 * Every law, in the order of `Sink`'s promises.
 *
 * @since 1.0.0
 * @category laws
 */
export const sinkConformance: ReadonlyArray<Law> = [
  law("answers for each event, at its index", [], ({ session }) =>
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

  law("answers growing versions in the order of a key, and beyond the batch", [], ({ session }) =>
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

  law("answers versions of their own for batches that are published at once", [], ({ session }) =>
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

  law("answers the first version for an id twice in a batch", [], ({ session }) =>
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

  law("answers the first version for an id of an earlier batch, and publishes what is new", [], ({ session }) =>
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

  law("answers the first version for an id from before a restart, and growing ones after it", [], ({ session }) =>
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

  law("has each event in the feed once, with the version it answered", ["entries"], ({ entries, session }) =>
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

  law("carries the exact text of an event, the control version added at most", ["entries"], ({ entries, session }) =>
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
