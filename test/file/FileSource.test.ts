import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Stream } from "effect"
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import { FileSource } from "../../src/file/index.js"
import { type Source } from "../../src/fleet/index.js"
import { eventually } from "../support/pump.js"

const directory = Effect.acquireRelease(
  Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "file-source-"))),
  (directory) => Effect.promise(() => Fs.rm(directory, { recursive: true, force: true }))
)

/** An event's file, which appears as a whole. */
const place = (directory: string, version: number, name = `e${version}`) =>
  Effect.promise(async () => {
    const path = Path.join(directory, `.tmp-${name}`)
    await Fs.writeFile(path, JSON.stringify({ event_id: name, type: "x", control_version: version }))
    await Fs.rename(path, Path.join(directory, `${name}.json`))
  })

/** Reads on in the background. */
const follow = (source: Source.Source["Type"], after = 0) =>
  Effect.gen(function* () {
    const versions: Array<number> = []
    const fiber = yield* source.events(after).pipe(
      Stream.runForEach(({ version }) => Effect.sync(() => versions.push(version))),
      Effect.forkScoped
    )
    return {
      versions,
      reaches: (count: number) =>
        eventually(
          `${count} events`,
          Effect.sync(() => versions.length >= count)
        ),
      error: Effect.timeout(Effect.flip(Fiber.join(fiber)), "10 seconds")
    }
  })

describe("FileSource", () => {
  it.scopedLive("reads files in the order of their versions even if they appear in another order", () =>
    Effect.gen(function* () {
      const path = yield* directory
      const source = yield* FileSource.make({ directory: path, settle: "1 minute" })
      const reader = yield* follow(source)
      yield* place(path, 1)
      yield* reader.reaches(1)
      for (const version of [5, 3, 4]) yield* place(path, version)
      yield* Effect.sleep("200 millis")
      assert.deepStrictEqual(reader.versions, [1])
      yield* place(path, 2)
      yield* reader.reaches(5)
      assert.deepStrictEqual(reader.versions, [1, 2, 3, 4, 5])
    })
  )

  it.scopedLive("keeps the order while many writers place files at once", () =>
    Effect.gen(function* () {
      const path = yield* directory
      const source = yield* FileSource.make({ directory: path, settle: "1 minute" })
      const reader = yield* follow(source)
      const total = 600
      // Each a random way behind its turn.
      yield* Effect.forEach(
        Array.from({ length: total }, (_, n) => n + 1),
        (version) => Effect.delay(place(path, version), version * 2 + Math.random() * 100),
        { concurrency: "unbounded" }
      )
      yield* reader.reaches(total)
      assert.deepStrictEqual(
        reader.versions,
        Array.from({ length: total }, (_, n) => n + 1)
      )
    })
  )

  it.scopedLive("passes a hole, and stops at a file that fills it later", () =>
    Effect.gen(function* () {
      const path = yield* directory
      const source = yield* FileSource.make({ directory: path, settle: "300 millis" })
      const reader = yield* follow(source)
      yield* place(path, 1)
      yield* place(path, 4)
      yield* reader.reaches(2)
      assert.deepStrictEqual(reader.versions, [1, 4])
      yield* place(path, 3, "late")
      const error = yield* reader.error
      assert.deepInclude({ ...error }, { _tag: "SourceError", reason: "gap" })
      assert.include((error as Error).message, Path.join(path, "late.json"))
      // As the message says.
      const again = yield* follow(source, 1)
      yield* again.reaches(2)
      assert.deepStrictEqual(again.versions, [3, 4])
    })
  )

  it.scopedLive("continues if files that were passed are removed", () =>
    Effect.gen(function* () {
      const path = yield* directory
      const source = yield* FileSource.make({ directory: path })
      for (const version of [1, 2, 3]) yield* place(path, version)
      const reader = yield* follow(source)
      yield* reader.reaches(3)
      yield* Effect.promise(() => Fs.rm(Path.join(path, "e1.json")))
      yield* place(path, 4)
      yield* reader.reaches(4)
      assert.deepStrictEqual(reader.versions, [1, 2, 3, 4])
    })
  )

  const malformed: Record<string, readonly [text: string, why: RegExp]> = {
    "that is cut short": [`{"event_id":"x","control_ver`, /holds no JSON/],
    "that is empty": ["", /holds no JSON/],
    "of another JSON": ["[1]", /has no control_version/],
    "without a version": [`{"event_id":"x","type":"x"}`, /has no control_version/],
    "with a version that is none": [`{"event_id":"x","control_version":0}`, /cannot be/],
    "with a version that is text": [`{"event_id":"x","control_version":"7"}`, /cannot be/],
    "with the version of another": [`{"event_id":"x","control_version":2}`, /control_version 2, and so has/]
  }
  for (const [what, [text, why]] of Object.entries(malformed)) {
    it.scopedLive(`stops at a file ${what}, and names it`, () =>
      Effect.gen(function* () {
        const path = yield* directory
        const source = yield* FileSource.make({ directory: path })
        for (const version of [1, 2]) yield* place(path, version)
        const reader = yield* follow(source)
        yield* reader.reaches(2)
        yield* Effect.promise(() => Fs.writeFile(Path.join(path, ".tmp"), text))
        yield* Effect.promise(() => Fs.rename(Path.join(path, ".tmp"), Path.join(path, "bad.json")))
        const error = yield* reader.error
        assert.deepInclude({ ...error }, { _tag: "SourceError", reason: "malformed" })
        assert.match((error as Error).message, why)
        assert.include((error as Error).message, Path.join(path, ""))
        assert.include((error as Error).message, ".json")
      })
    )
  }

  it.scopedLive("ignores other files", () =>
    Effect.gen(function* () {
      const path = yield* directory
      yield* Effect.promise(async () => {
        for (const name of [".tmp-a.json", ".lock", ".next-version", "README.md", "e9.json~", "core"]) {
          await Fs.writeFile(Path.join(path, name), "none of ours")
        }
        await Fs.mkdir(Path.join(path, "archive"))
      })
      yield* place(path, 1)
      const source = yield* FileSource.make({ directory: path })
      const reader = yield* follow(source)
      yield* reader.reaches(1)
      yield* Effect.promise(() => Fs.writeFile(Path.join(path, "notes.txt"), "none of ours"))
      yield* place(path, 2)
      yield* reader.reaches(2)
      assert.deepInclude(yield* source.look, { newest: 2 })
    })
  )

  it.scopedLive("names the missing directory", () =>
    Effect.gen(function* () {
      const path = Path.join(yield* directory, "feed")
      const source = yield* FileSource.make({ directory: path })
      const error = yield* Effect.flip(source.look)
      assert.deepInclude({ ...error }, { reason: "misconfigured" })
      assert.include(error.message, path)
      assert.isTrue(Exit.isFailure(yield* Effect.exit(Stream.runDrain(source.events(0)))))
      yield* Effect.promise(() => Fs.mkdir(path))
      assert.deepInclude(yield* source.look, { newest: 0 })
    })
  )

  it.scopedLive("rests while nothing happens, and uses a bounded share of the time if much does", () =>
    Effect.gen(function* () {
      const path = yield* directory
      yield* Effect.forEach(
        Array.from({ length: 3_000 }, (_, n) => n + 1),
        (version) => place(path, version),
        { concurrency: 32 }
      )
      const source = yield* FileSource.make({ directory: path })
      const reader = yield* follow(source)
      yield* reader.reaches(3_000)
      /** The share of one processor that this process takes meanwhile. */
      const load = <E, R>(effect: Effect.Effect<unknown, E, R>) =>
        Effect.gen(function* () {
          const [before, from] = [process.cpuUsage(), performance.now()]
          yield* effect
          const { system, user } = process.cpuUsage(before)
          return (system + user) / 1_000 / (performance.now() - from)
        })
      assert.isBelow(yield* load(Effect.sleep("1500 millis")), 0.2)
      const writing = Effect.forEach(
        Array.from({ length: 100 }, (_, n) => 3_001 + n),
        (version) => Effect.zipRight(Effect.sleep("10 millis"), place(path, version)),
        { discard: true }
      )
      assert.isBelow(yield* load(writing), 0.7)
      yield* reader.reaches(3_100)
    })
  )
})
