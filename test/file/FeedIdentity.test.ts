import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Stream } from "effect"
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import { FileSink, FileSource } from "../../src/file/index.js"
import { Applier, AppliedEvents, ArtifactStore, Handlers, Source } from "../../src/fleet/index.js"
import { ControlVersion, EventId, OrderingKey, Sink } from "../../src/index.js"
import { MemoryAppliedEvents } from "../../src/testing/index.js"
import { eventually } from "../support/pump.js"

const inDirectory = Effect.acquireRelease(
  Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "feed-identity-"))),
  (directory) => Effect.promise(() => Fs.rm(directory, { recursive: true, force: true }))
)

const event = (id: string): Sink.OutboundEvent => {
  const eventId = EventId.make(id)
  const event = { event_id: eventId, type: "test" }
  return {
    eventId,
    orderingKey: OrderingKey.make(""),
    event,
    payload: JSON.stringify(event),
    traceparent: undefined,
    createdAt: 0,
    attemptCount: 0
  }
}

/** A pump that starts, publishes and stops. */
const publish = (directory: string, prefix: string, count: number) =>
  Effect.scoped(
    Effect.flatMap(FileSink.make({ directory }), (sink) =>
      sink.publish({
        events: Array.from({ length: count }, (_, n) => event(`${prefix}${n + 1}`)) as [Sink.OutboundEvent],
        deadline: Infinity
      })
    )
  )

const remove = (directory: string) => Effect.promise(() => Fs.rm(directory, { recursive: true }))

const idOf = (directory: string) =>
  Effect.promise(async () => (await Fs.readFile(Path.join(directory, ".feed-id"), "utf8")).trim())

const withoutId = (directory: string) => Effect.promise(() => Fs.rm(Path.join(directory, ".feed-id")))

/** A node on the directory, and the ids that it has applied. */
const node = (directory: string) => {
  const ids: Array<string> = []
  const handlers = Handlers.make([], {}, { otherwise: ({ event }) => Effect.sync(() => void ids.push(event.event_id)) })
  const layer = Applier.layerManual(handlers).pipe(
    Layer.provideMerge(
      Layer.mergeAll(FileSource.layer({ directory }), MemoryAppliedEvents.layer, ArtifactStore.layerMemory)
    )
  )
  const drain = Effect.flatMap(Applier.Applier, ({ drain }) => drain)
  return { ids, layer, drain, cursor: Effect.flatMap(AppliedEvents.AppliedEvents, ({ cursor }) => cursor) }
}

const names = (prefix: string, count: number) => Array.from({ length: count }, (_, n) => `${prefix}${n + 1}`)

describe("The identity of a file feed", () => {
  it.scopedLive("survives restarts of the pump, and differs for a new feed", () =>
    Effect.gen(function* () {
      const directory = Path.join(yield* inDirectory, "feed")
      yield* publish(directory, "a", 2)
      const first = yield* idOf(directory)
      assert.match(first, /^[0-9a-f-]{36}$/)
      yield* publish(directory, "b", 2)
      assert.strictEqual(yield* idOf(directory), first)
      const source = yield* FileSource.make({ directory })
      assert.strictEqual((yield* source.look).identity, first)
      yield* remove(directory)
      yield* publish(directory, "a", 2)
      const second = yield* idOf(directory)
      assert.notStrictEqual(second, first)
      assert.strictEqual((yield* source.look).identity, second)
      // Who looked at the first one before does not read the second one for it.
      const stale = yield* Effect.flip(Stream.runDrain(source.events(1, first)))
      assert.deepInclude({ ...stale }, { _tag: "SourceError", reason: "replaced" })
      assert.include(stale.message, first)
      assert.include(stale.message, second)
    })
  )

  it.scopedLive("makes a new feed an error at the node, not silence", () =>
    Effect.gen(function* () {
      const directory = Path.join(yield* inDirectory, "feed")
      const { drain, ids, layer } = node(directory)
      yield* Effect.gen(function* () {
        yield* publish(directory, "a", 5)
        yield* drain
        assert.deepStrictEqual(ids, names("a", 5))
        yield* remove(directory)
        yield* publish(directory, "b", 7)
        const error = yield* Effect.flip(drain)
        assert.deepInclude({ ...error }, { _tag: "SourceError", reason: "replaced" })
        assert.deepStrictEqual(ids, names("a", 5))
        // As the message says.
        const { identity } = yield* Effect.flatMap(Source.Source, ({ look }) => look)
        yield* Effect.flatMap(AppliedEvents.AppliedEvents, (applied) => applied.seek({ feed: identity, position: 0 }))
        yield* drain
        assert.deepStrictEqual(ids, [...names("a", 5), ...names("b", 7)])
      }).pipe(Effect.provide(layer))
    })
  )

  it.scopedLive("makes it an error even if the new feed has fewer, as many or the same events", () =>
    Effect.gen(function* () {
      for (const [prefix, count] of [
        ["b", 1],
        ["b", 5],
        ["a", 5],
        ["a", 9]
      ] as const) {
        const directory = Path.join(yield* inDirectory, "feed")
        const { drain, ids, layer } = node(directory)
        yield* Effect.gen(function* () {
          yield* publish(directory, "a", 5)
          yield* drain
          yield* remove(directory)
          yield* publish(directory, prefix, count)
          const error = yield* Effect.flip(drain)
          assert.deepInclude({ ...error }, { _tag: "SourceError", reason: "replaced" })
          assert.strictEqual(ids.length, 5)
        }).pipe(Effect.provide(layer))
      }
    })
  )

  it.scopedLive("makes it an error for a running reader, even if the pump runs too", () =>
    Effect.gen(function* () {
      const base = yield* inDirectory
      const directory = Path.join(base, "feed")
      yield* Effect.promise(async () => {
        for (const name of ["one", "other"]) await Fs.mkdir(Path.join(base, name))
        await Fs.symlink("one", directory)
        await Fs.symlink("other", Path.join(base, "next"))
      })
      const sink = yield* FileSink.make({ directory })
      const send = (id: string) => sink.publish({ events: [event(id)], deadline: Infinity })
      for (const id of names("a", 3)) yield* send(id)
      const source = yield* FileSource.make({ directory })
      const seen: Array<number> = []
      const fiber = yield* source.events(0).pipe(
        Stream.runForEach(({ version }) => Effect.sync(() => seen.push(version))),
        Effect.forkScoped
      )
      yield* eventually(
        "3 events",
        Effect.sync(() => seen.length === 3)
      )
      // At once, so that the reader never sees it missing. The pump takes the directory again; versions go on.
      yield* Effect.promise(() => Fs.rename(Path.join(base, "next"), directory))
      for (const id of names("b", 3)) yield* send(id)
      const error = yield* Effect.timeout(Effect.flip(Fiber.join(fiber)), "10 seconds")
      assert.deepInclude({ ...error }, { _tag: "SourceError", reason: "replaced" })
      assert.deepStrictEqual(seen, [1, 2, 3])
    })
  )

  it.scopedLive("is given to an older feed, and adopted once by nodes that know none", () =>
    Effect.gen(function* () {
      const directory = Path.join(yield* inDirectory, "feed")
      const { cursor, drain, ids, layer } = node(directory)
      yield* Effect.gen(function* () {
        yield* publish(directory, "a", 3)
        yield* withoutId(directory)
        yield* drain
        assert.deepStrictEqual(yield* cursor, { feed: "", position: 3 })
        // The pump of this version starts, and publishes nothing.
        yield* Effect.scoped(FileSink.make({ directory }))
        const id = yield* idOf(directory)
        yield* drain
        assert.deepStrictEqual(yield* cursor, { feed: id, position: 3 })
        yield* publish(directory, "c", 2)
        yield* drain
        assert.deepStrictEqual(ids, [...names("a", 3), ...names("c", 2)])
        yield* remove(directory)
        yield* publish(directory, "b", 9)
        assert.deepInclude({ ...(yield* Effect.flip(drain)) }, { reason: "replaced" })
        assert.strictEqual((yield* cursor).feed, id)
      }).pipe(Effect.provide(layer))
    })
  )

  it.scopedLive("that is missing is an error, and the versions of the rest continue", () =>
    Effect.gen(function* () {
      const directory = Path.join(yield* inDirectory, "feed")
      const { drain, ids, layer } = node(directory)
      yield* Effect.gen(function* () {
        yield* publish(directory, "a", 3)
        yield* drain
        yield* withoutId(directory)
        const error = yield* Effect.flip(drain)
        assert.deepInclude({ ...error }, { _tag: "SourceError", reason: "replaced" })
        assert.include(error.message, "has no identity")
        assert.strictEqual(ids.length, 3)
      }).pipe(Effect.provide(layer))
      const outcomes = yield* publish(directory, "b", 1)
      assert.deepStrictEqual(outcomes, [Sink.published(ControlVersion.make(4))])
    })
  )

  it.scopedLive("is that of the original in a copy of the feed", () =>
    Effect.gen(function* () {
      const base = yield* inDirectory
      const directory = Path.join(base, "copy")
      const { drain, ids, layer } = node(directory)
      yield* Effect.gen(function* () {
        yield* publish(Path.join(base, "feed"), "a", 3)
        yield* Effect.promise(() => Fs.cp(Path.join(base, "feed"), directory, { recursive: true }))
        yield* drain
        // A copy that is made anew from the same original is the same feed.
        yield* remove(directory)
        yield* publish(Path.join(base, "feed"), "b", 2)
        yield* Effect.promise(() => Fs.cp(Path.join(base, "feed"), directory, { recursive: true }))
        yield* drain
        assert.deepStrictEqual(ids, [...names("a", 3), ...names("b", 2)])
      }).pipe(Effect.provide(layer))
    })
  )

  it.scopedLive("does not mistake a file of the former feed for one of the same name", () =>
    Effect.gen(function* () {
      const directory = Path.join(yield* inDirectory, "feed")
      const source = yield* FileSource.make({ directory })
      yield* publish(directory, "x", 3)
      yield* publish(directory, "y", 1)
      yield* source.look
      yield* remove(directory)
      // y1 was version 4, and is version 1.
      yield* publish(directory, "y", 1)
      yield* publish(directory, "x", 3)
      assert.deepInclude(yield* source.look, { newest: 4, oldest: 1 })
      const events = Array.from(yield* Stream.runCollect(Stream.take(source.events(0), 4)))
      assert.deepStrictEqual(
        events.map(({ text, version }) => [version, (JSON.parse(text) as { event_id: string }).event_id]),
        [
          [1, "y1"],
          [2, "x1"],
          [3, "x2"],
          [4, "x3"]
        ]
      )
    })
  )

  it.scopedLive("gives an event that was removed and published again a new version", () =>
    Effect.gen(function* () {
      const directory = Path.join(yield* inDirectory, "feed")
      const source = yield* FileSource.make({ directory, settle: "100 millis" })
      yield* publish(directory, "x", 3)
      yield* source.look
      yield* Effect.promise(() => Fs.rm(Path.join(directory, "x1.json")))
      yield* publish(directory, "x", 1)
      const events = Array.from(yield* Stream.runCollect(Stream.take(source.events(0), 3)))
      assert.deepStrictEqual(
        events.map(({ text, version }) => [version, (JSON.parse(text) as { control_version: number }).control_version]),
        [
          [2, 2],
          [3, 3],
          [4, 4]
        ]
      )
    })
  )
})
