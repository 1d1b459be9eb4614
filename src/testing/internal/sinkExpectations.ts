import type * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import type * as ControlEvent from "../../ControlEvent.js"
import type * as ControlVersion from "../../ControlVersion.js"
import * as EventId from "../../EventId.js"
import * as OrderingKey from "../../OrderingKey.js"
import type { OutboundEvent, Outcome } from "../../Sink.js"
import { check, type Broken } from "./broken.js"
import type { Entry, Events, Publish } from "./sinkHarness.js"

export const outbound = (eventId: string, key: string, payload?: string): OutboundEvent => {
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

/** Events named `a1 b1 a2 b2 …`, as many of each key. */
export const interleaved = (keys: Arr.NonEmptyReadonlyArray<string>, from: number, to: number): Events => {
  const events = Array.from({ length: to - from + 1 }, (_, n) =>
    keys.map((key) => outbound(`${key}${from + n}`, key))
  ).flat()
  return [events[0]!, ...events.slice(1)]
}

export const describe = (outcomes: ReadonlyArray<Outcome>): string =>
  outcomes
    .map((outcome) =>
      outcome._tag === "Published" ? `${outcome.version}${outcome.duplicate ? " again" : ""}` : outcome._tag
    )
    .join(", ")

/** Returns the versions of a batch that must be published as a whole. */
export const versionsOf = (
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

export const publishAll = (publish: Publish, events: Events) =>
  Effect.flatMap(publish(events), (outcomes) => versionsOf(events, outcomes))

export const expectDuplicates = (expected: ReadonlyArray<number>, outcomes: ReadonlyArray<Outcome>) =>
  check(
    outcomes.length === expected.length &&
      outcomes.every(
        (outcome, index) => outcome._tag === "Published" && outcome.duplicate && outcome.version === expected[index]
      ),
    () => `Expected duplicates of ${expected.join(", ")}, got: ${describe(outcomes)}`
  )

export const expectGrowing = (versions: ReadonlyArray<number>) =>
  check(
    versions.every((version, index) => index === 0 || version > versions[index - 1]!),
    () => `Expected versions that grow, got: ${versions.join(", ")}`
  )

export const expectGrowingPerKey = (events: ReadonlyArray<OutboundEvent>, versions: ReadonlyArray<number>) =>
  Effect.forEach(
    new Set(events.map((event) => event.orderingKey)),
    (key) => expectGrowing(versions.filter((_, index) => events[index]!.orderingKey === key)),
    { discard: true }
  )

/** The feed holds these events with these versions, and nothing else. */
export const expectFeed = (
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

export const without = (events: Events, outcomes: ReadonlyArray<Outcome>) =>
  events.filter((_, index) => outcomes[index]?._tag === "Published")

/** Ids that a careless encoding into a file name, a subject or a header confuses. */
export const awkwardIds: Arr.NonEmptyReadonlyArray<string> = [
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
