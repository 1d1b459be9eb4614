import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import { ControlEvent, ControlVersion, Sink } from "../../src/index.js"
import { FileSink } from "../../src/file/index.js"
import { fileName } from "../../src/file/internal/fileName.js"
import { MemorySink, SinkConformance } from "../../src/testing/index.js"

const { missingHooks, sinkConformance } = SinkConformance

/** A law that lacks a hook is reported as skipped. */
const suite = <Feed>(name: string, harness: SinkConformance.Harness<Feed>, laws = sinkConformance) =>
  describe(name, () => {
    for (const law of laws) {
      it.live.skipIf(missingHooks(law, harness).length > 0)(law.name, () => law.run(harness))
    }
  })

/** Keeps an id in a set as long as the scope. */
const during = (ids: Set<string>, id: string) =>
  Effect.acquireRelease(
    Effect.sync(() => ids.add(id)),
    () => Effect.sync(() => ids.delete(id))
  )

// A sink that discards has no feed, and every restart forgets it.
const ofNop = [
  "returns an outcome for each event, at its index",
  "returns growing versions in the order of a key, and across batches",
  "returns different versions for concurrent batches"
]
suite(
  "nop, as far as the laws are about answers alone",
  SinkConformance.harness({ empty: Effect.void, layer: () => Sink.layerNop }),
  ofNop.map((name) => sinkConformance.find((law) => law.name === name)!)
)

suite(
  "memory",
  SinkConformance.harness({
    empty: Layer.build(MemorySink.layer),
    layer: (feed) => Layer.succeedContext(feed),
    entries: (feed) => Context.get(feed, MemorySink.MemorySink).feed,
    failing: (feed, id) => {
      const memory = Context.get(feed, MemorySink.MemorySink)
      return Effect.acquireRelease(memory.failEvent(id), () => memory.failEvent(id, { times: 0 }))
    },
    rejecting: (feed, id) => {
      const memory = Context.get(feed, MemorySink.MemorySink)
      return Effect.acquireRelease(memory.rejectEvent(id), () => memory.rejectEvent(id, { times: 0 }))
    }
  })
)

suite(
  "file",
  SinkConformance.harness<string>({
    empty: Effect.acquireRelease(
      Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "file-sink-"))),
      (directory) => Effect.promise(() => Fs.rm(directory, { recursive: true }))
    ),
    layer: (directory) => FileSink.layer({ directory }),
    entries: (directory) =>
      Effect.promise(async () => {
        const files = (await Fs.readdir(directory)).filter((name) => !name.startsWith("."))
        const entries = await Promise.all(
          files.map(async (name) => {
            const payload = await Fs.readFile(Path.join(directory, name), "utf8")
            const event = JSON.parse(payload) as { event_id: string; control_version: number }
            return { eventId: event.event_id, version: event.control_version, payload }
          })
        )
        return entries.sort((one, other) => one.version - other.version)
      }),
    failing: (directory, id) => {
      const file = Path.join(directory, fileName(id))
      return Effect.acquireRelease(
        Effect.promise(() => Fs.mkdir(file)),
        () => Effect.promise(() => Fs.rmdir(file))
      )
    }
  })
)

/** A feed for a sink that appends one event at a time, and what is wrong with the sink. */
class Appended {
  readonly entries: Array<SinkConformance.Entry> = []
  readonly failing = new Set<string>()
  readonly rejecting = new Set<string>()
  constructor(readonly fault?: string) {}

  readonly append = (event: Sink.OutboundEvent): Effect.Effect<Sink.Published, Sink.EventFailed | Sink.EventRejected> =>
    Effect.gen(this, function* () {
      // As if there was something to wait for, so that keys do run at the same time.
      yield* Effect.promise(() => Promise.resolve())
      const { eventId, payload } = event
      const index = this.fault === "no duplicates" ? -1 : this.entries.findIndex((entry) => this.isSame(entry, eventId))
      if (index >= 0) return Sink.published(ControlVersion.make(index + 1), this.fault !== "no mark on duplicates")
      const failed = this.failing.has(eventId)
      if (failed || this.rejecting.has(eventId)) {
        if (this.fault === "appends what fails")
          this.entries.push({ eventId, version: this.entries.length + 1, payload })
        const message = "told so"
        return yield* failed ? new Sink.EventFailed({ eventId, message }) : new Sink.EventRejected({ eventId, message })
      }
      const version = ControlVersion.make(this.entries.length + 1)
      const text = this.fault === "rewrites" ? JSON.stringify(JSON.parse(payload)) : payload
      this.entries.push({ eventId, version, payload: ControlEvent.withControlVersion(text, version) })
      if (this.fault === "appends twice") this.entries.push({ eventId, version: version + 1, payload })
      return Sink.published(version)
    })

  private isSame(entry: SinkConformance.Entry, eventId: string): boolean {
    return this.fault === "takes a for A"
      ? entry.eventId.toLowerCase() === eventId.toLowerCase()
      : entry.eventId === eventId
  }

  sink(): Sink.Sink["Type"] {
    const sink = Sink.fromAppend({ name: "appended", append: this.append })
    const each = (batch: Sink.Batch) => Effect.forEach(batch.events, (event) => Effect.merge(this.append(event)))
    switch (this.fault) {
      case "forgets at a restart":
        this.entries.length = 0
        return sink
      case "goes on after a failure":
        return { ...sink, publish: each }
      case "ignores the deadline":
        return { ...sink, publish: (batch) => sink.publish({ ...batch, deadline: Infinity }) }
      case "reverses a batch":
        return {
          ...sink,
          publish: ({ deadline, events: [first, ...rest] }) =>
            Effect.map(sink.publish({ deadline, events: [...rest.reverse(), first] as never }), (outcomes) =>
              outcomes.toReversed()
            )
        }
      case "answers in another order":
        return { ...sink, publish: (batch) => Effect.map(sink.publish(batch), (outcomes) => outcomes.toReversed()) }
      case "answers for the first event alone":
        return { ...sink, publish: (batch) => Effect.map(sink.publish(batch), (outcomes) => outcomes.slice(0, 1)) }
      case "loses an event":
        return {
          ...sink,
          publish: (batch) => Effect.tap(sink.publish(batch), () => Effect.sync(() => this.entries.splice(3, 1)))
        }
      case "appends again what was interrupted":
        return {
          ...sink,
          publish: (batch) =>
            Effect.onInterrupt(Effect.zipLeft(sink.publish(batch), Effect.sleep(4)), () =>
              Effect.sync(() => this.entries.push(...this.entries.slice(-1)))
            )
        }
    }
    return sink
  }
}

const appended = (fault?: string) =>
  SinkConformance.harness({
    empty: Effect.sync(() => new Appended(fault)),
    layer: (feed) => Layer.sync(Sink.Sink, () => feed.sink()),
    entries: (feed) => Effect.sync(() => feed.entries.slice()),
    failing: (feed, id) => during(feed.failing, id),
    rejecting: (feed, id) => during(feed.rejecting, id)
  })

suite("Sink.fromAppend", appended())

describe("a sink that breaks a law", () => {
  const broken: Record<string, string> = {
    "answers for the first event alone": "returns an outcome for each event, at its index",
    "reverses a batch": "returns growing versions in the order of a key, and across batches",
    "no duplicates": "returns the first version for an id twice in a batch",
    "no mark on duplicates": "returns the first version for an id of an earlier batch, and publishes new events",
    "forgets at a restart": "returns the first version for an id from before a restart, and growing ones after it",
    "takes a for A": "keeps awkward ids apart",
    "answers in another order": "has each event in the feed once, with the version it returned",
    "appends twice": "has each event in the feed once, with the version it returned",
    "loses an event": "has each event in the feed once, with the version it returned",
    rewrites: "carries the exact text of an event, with at most the control version added",
    "goes on after a failure": "publishes nothing of a key after a failed event, and everything of other keys",
    "appends what fails": "publishes nothing of a key after a rejected event, and everything of other keys",
    "ignores the deadline": "publishes nothing after the deadline",
    "appends again what was interrupted": "publishes each event once and in order, however often it is interrupted"
  }
  for (const [fault, name] of Object.entries(broken)) {
    it.live(`is found out: ${fault}`, () =>
      Effect.gen(function* () {
        const law = sinkConformance.find((law) => law.name === name)
        const failure = yield* Effect.flip(law!.run(appended(fault)))
        assert.strictEqual(failure.law, name)
        assert.match(failure.message, /^Expected /)
      })
    )
  }

  it.live("names the hooks that a law lacks", () =>
    Effect.gen(function* () {
      const { empty, layer } = appended()
      const harness = SinkConformance.harness({ empty, layer })
      const skipped = sinkConformance.filter((law) => missingHooks(law, harness).length > 0)
      assert.deepStrictEqual(
        missingHooks(
          skipped.find(({ needs }) => needs.length === 2)!,
          harness
        ),
        ["entries", "failing"]
      )
      for (const law of skipped) {
        assert.match((yield* Effect.flip(law.run(harness))).message, /^The harness has no hook "/)
      }
    })
  )

  it.live("fails with the cause if the sink cannot be built", () =>
    Effect.gen(function* () {
      const harness = SinkConformance.harness({
        empty: Effect.void,
        layer: () => Layer.fail("no broker")
      })
      const failure = yield* Effect.flip(sinkConformance[0]!.run(harness))
      assert.strictEqual(failure.cause, "no broker")
    })
  )
})
