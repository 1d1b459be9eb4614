import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Logger, LogLevel, Ref, Schedule, Stream, TestClock } from "effect"
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import { FileRefreshPosition } from "../../src/file/index.js"
import { Applier, Refresh, Source } from "../../src/fleet/index.js"
import { MemorySource } from "../../src/testing/index.js"

const silent = Logger.minimumLogLevel(LogLevel.None)

const append = (from: number, to: number) =>
  Effect.flatMap(MemorySource.MemorySource, (source) =>
    source.append(
      Array.from({ length: to - from + 1 }, (_, n) => JSON.stringify({ event_id: `e${from + n}`, type: "x" }))
    )
  )
const drain = Effect.flatMap(Applier.Applier, ({ drain }) => drain)
const acknowledged = Effect.flatMap(MemorySource.MemorySource, (source) => source.acknowledged)
const position = Effect.flatMap(Refresh.RefreshPosition, ({ read }) => read)

/** What was refreshed: how many events each time, or everything. */
const recorder = (before: Effect.Effect<void, unknown> = Effect.void) => {
  const refreshed: Array<number | "everything"> = []
  const refresh = ({ events, isComplete }: Refresh.Changed) =>
    Effect.zipRight(
      before,
      Effect.sync(() => refreshed.push(isComplete ? events.length : "everything"))
    )
  return { refreshed, refresh }
}

const base = Layer.mergeAll(MemorySource.layer, Refresh.layerPositionMemory, silent)

describe("Refresh", () => {
  it.effect("starts with one refresh of everything, and takes a burst of 1,500 events by one", () => {
    const { refresh, refreshed } = recorder()
    return Effect.gen(function* () {
      yield* append(1, 10)
      yield* drain
      assert.deepStrictEqual(refreshed, ["everything"])
      yield* append(11, 1_510)
      assert.deepStrictEqual(yield* drain, { applied: 1_500, skipped: 0, setAside: 0 })
      assert.deepStrictEqual(refreshed, ["everything", 1_500])
      assert.deepStrictEqual<ReadonlyArray<number>>(yield* acknowledged, [1_510])
      yield* drain
      assert.deepStrictEqual(refreshed, ["everything", 1_500])
    }).pipe(Effect.provide(Layer.provideMerge(Refresh.layerManual(refresh), base)))
  })

  it.effect("waits for all that is there if the source delivers it bit by bit", () => {
    const { refresh, refreshed } = recorder()
    const slow = Layer.effect(
      Source.Source,
      Effect.map(Source.Source, (source) => ({
        ...source,
        events: (after: Source.Position) =>
          source
            .events(after)
            .pipe(
              Stream.rechunk(100),
              Stream.chunks,
              Stream.schedule(Schedule.spaced("10 millis")),
              Stream.flattenChunks
            )
      }))
    )
    return Effect.gen(function* () {
      yield* drain
      yield* append(1, 1_500)
      const draining = yield* Effect.fork(drain)
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.join(draining)
      assert.deepStrictEqual(refreshed, ["everything", 1_500])
    }).pipe(Effect.provide(Layer.provideMerge(Layer.provide(Refresh.layerManual(refresh), slow), base)))
  })

  it.effect("takes at most 4,096 events by one refresh", () => {
    const { refresh, refreshed } = recorder()
    return Effect.gen(function* () {
      yield* drain
      yield* append(1, 5_000)
      yield* drain
      assert.deepStrictEqual(refreshed, ["everything", 4_096, 904])
      assert.deepStrictEqual<ReadonlyArray<number>>(yield* acknowledged, [4_096, 5_000])
    }).pipe(Effect.provide(Layer.provideMerge(Refresh.layerManual(refresh), base)))
  })

  it.effect("runs by itself, and takes what arrives during a refresh by the next one", () =>
    Effect.gen(function* () {
      const { refresh, refreshed } = recorder(Effect.sleep("1 second"))
      yield* Effect.gen(function* () {
        const { changes } = yield* Applier.Applier
        const at = (version: number) =>
          Stream.runHead(Stream.filter(changes, ({ position, state }) => position === version && state === "idle"))
        yield* TestClock.adjust("1 second")
        yield* append(1, 300)
        yield* TestClock.adjust("500 millis")
        yield* append(301, 1_800)
        yield* TestClock.adjust("2 seconds")
        yield* at(1_800)
        assert.deepStrictEqual(refreshed, ["everything", 300, 1_500])
      }).pipe(Effect.provide(Layer.provideMerge(Refresh.layer(refresh), base)))
    })
  )

  it.effect("keeps its position and acknowledges nothing before a refresh succeeds, and retries it", () =>
    Effect.gen(function* () {
      const fails = yield* Ref.make(false)
      const { refresh, refreshed } = recorder(
        Effect.flatMap(Ref.get(fails), (failing) => (failing ? Effect.fail("the cache is down") : Effect.void))
      )
      yield* Effect.gen(function* () {
        const { changes } = yield* Applier.Applier
        yield* Stream.runHead(Stream.filter(changes, () => refreshed.length === 1))
        yield* Ref.set(fails, true)
        yield* append(1, 20)
        const halted = yield* Stream.runHead(Stream.filter(changes, ({ state }) => state === "halted"))
        assert.include(JSON.stringify(halted), "The refresh failed: the cache is down")
        assert.deepStrictEqual(yield* acknowledged, [])
        assert.strictEqual((yield* position)?.position, 0)
        yield* Ref.set(fails, false)
        yield* TestClock.adjust("1 minute")
        yield* Stream.runHead(Stream.filter(changes, ({ position }) => position === 20))
        assert.deepStrictEqual(refreshed, ["everything", 20])
      }).pipe(Effect.provide(Layer.provideMerge(Refresh.layer(refresh), base)))
    })
  )

  it.effect("refreshes everything if events are gone, the feed is another one, or an event is invalid", () => {
    const { refresh, refreshed } = recorder()
    return Effect.gen(function* () {
      const source = yield* MemorySource.MemorySource
      yield* drain
      yield* append(1, 10)
      yield* source.removeUpTo(5)
      yield* drain
      assert.deepStrictEqual(refreshed, ["everything", "everything"])
      yield* source.replace
      yield* append(1, 3)
      yield* drain
      assert.deepStrictEqual(refreshed, ["everything", "everything", "everything"])
      yield* source.append(["no event"])
      yield* drain
      assert.strictEqual(refreshed.length, 4)
      assert.strictEqual(refreshed[3], "everything")
      assert.strictEqual((yield* position)?.position, 4)
    }).pipe(Effect.provide(Layer.provideMerge(Refresh.layerManual(refresh), base)))
  })

  it.scopedLive("keeps its position in a file, and begins anew where the file holds none", () =>
    Effect.gen(function* () {
      const directory = yield* Effect.acquireRelease(
        Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "refresh-"))),
        (directory) => Effect.promise(() => Fs.rm(directory, { recursive: true }))
      )
      const file = Path.join(directory, "node", "position.json")
      const make = () => FileRefreshPosition.make({ file })
      assert.isUndefined(yield* make().read)
      yield* make().write({ feed: "feed", position: 41 })
      yield* make().write({ feed: "feed", position: 42 })
      assert.deepStrictEqual(yield* make().read, { feed: "feed", position: 42 })
      assert.deepStrictEqual(yield* Effect.promise(() => Fs.readdir(Path.dirname(file))), ["position.json"])
      yield* Effect.promise(() => Fs.writeFile(file, "{"))
      assert.isUndefined(yield* Effect.provide(make().read, silent))
      yield* Effect.promise(() => Fs.rm(file).then(() => Fs.mkdir(file)))
      const error = yield* Effect.flip(make().read)
      assert.deepInclude({ ...error }, { _tag: "AppliedEventsError", retryable: true })
      assert.include(error.message, file)
    })
  )
})
