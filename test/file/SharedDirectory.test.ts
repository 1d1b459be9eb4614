import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, type Duration, Effect, Fiber, Stream } from "effect"
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs/promises"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import { FileArtifactStore, FileSink, FileSource } from "../../src/file/index.js"
import { EventId, OrderingKey, type Sink } from "../../src/index.js"
import * as RegularFile from "../../src/node/regularFile.js"
import { readSecret } from "../../src/jetstream/internal/natsSettings.js"

const inDirectory = Effect.acquireRelease(
  Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "shared-directory-"))),
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

const publish = (sink: Sink.Sink["Type"], ...ids: [string, ...Array<string>]) =>
  sink.publish({ events: ids.map(event) as [Sink.OutboundEvent], deadline: Infinity })

/** What another user can put into a directory that both may write, by name. */
const plants: Record<string, (path: string, target: string) => Promise<unknown>> = {
  "a named pipe": (path) => Promise.resolve(execFileSync("mkfifo", [path])),
  "a symbolic link": (path, target) => Fs.symlink(target, path),
  "a dangling symbolic link": (path, target) => Fs.symlink(`${target}-missing`, path),
  "a link to itself": (path) => Fs.symlink(path, path),
  "a link to an endless device": (path) => Fs.symlink("/dev/zero", path),
  "a directory": (path) => Fs.mkdir(path),
  "a socket": (path) =>
    new Promise<void>((resolve, reject) => {
      const server = Net.createServer().once("error", reject)
      server.listen(path, () => {
        server.unref()
        resolve()
      })
    }),
  "a sparse file of 4 GiB": async (path) => {
    await Fs.writeFile(path, "")
    await Fs.truncate(path, 4 * 1024 ** 3)
  }
}

/** In time, in bounded memory, and without a trace in a file that is none of ours. */
const unharmed = <A, E, R>(target: string, effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const before = yield* Effect.promise(() => Fs.readFile(target, "utf8"))
    const memory = process.memoryUsage.rss()
    const result = yield* Effect.timeoutFail(effect, {
      duration: "10 seconds",
      onTimeout: () => new Cause.TimeoutException("It hangs")
    })
    assert.isBelow(process.memoryUsage.rss() - memory, 300 * 1024 ** 2)
    assert.strictEqual(yield* Effect.promise(() => Fs.readFile(target, "utf8")), before)
    return result
  })

for (const [what, plant] of Object.entries(plants)) {
  describe(`${what} in a shared directory`, () => {
    const at = (name: string) =>
      Effect.gen(function* () {
        const base = yield* inDirectory
        const directory = Path.join(base, "feed")
        const target = Path.join(base, "target")
        yield* Effect.promise(async () => {
          await Fs.mkdir(directory)
          // As an event would be: a link to it must not be taken for one.
          await Fs.writeFile(target, `{"event_id":"e1","type":"test","control_version":1}`)
          await plant(Path.join(directory, name), target)
        })
        return { directory, target }
      })

    it.scopedLive("in the place of an event fails that event at the sink, and no other", () =>
      Effect.gen(function* () {
        const { directory, target } = yield* at("e1.json")
        // A dangling link, too: it is no event, and not nothing either.
        const outcomes = yield* unharmed(
          target,
          Effect.flatMap(FileSink.make({ directory }), (sink) =>
            sink.publish({
              events: [event("e1"), { ...event("e2"), orderingKey: OrderingKey.make("other") }],
              deadline: Infinity
            })
          )
        )
        assert.deepStrictEqual(
          outcomes.map(({ _tag }) => _tag),
          ["EventFailed", "Published"]
        )
        assert.include(outcomes[0]?._tag === "EventFailed" ? outcomes[0].message : "", Path.join(directory, "e1.json"))
      })
    )

    it.scopedLive("in the place of an event is a typed error of the source that names it", () =>
      Effect.gen(function* () {
        const { directory, target } = yield* at("e1.json")
        const source = yield* FileSource.make({ directory })
        const error = yield* unharmed(target, Effect.flip(Stream.runDrain(source.events(0))))
        assert.strictEqual(error.reason, "malformed")
        assert.include(error.message, Path.join(directory, "e1.json"))
        assert.notInclude(error.message, "\n")
      })
    )

    it.scopedLive("that appears while a node reads can be interrupted by SIGTERM", () =>
      Effect.gen(function* () {
        const { directory, target } = yield* at("README")
        const source = yield* FileSource.make({ directory })
        const fiber = yield* Effect.forkScoped(Effect.exit(Stream.runDrain(source.events(0))))
        yield* Effect.sleep("100 millis")
        yield* Effect.promise(() => plant(Path.join(directory, "late.json"), target))
        yield* unharmed(target, Fiber.interrupt(fiber))
      })
    )

    for (const name of [".tmp-1", ".tmp-2", ".tmp-.next-version", ".tmp-.feed-id"]) {
      it.scopedLive(`in the place of ${name} is not written to, and not waited for`, () =>
        Effect.gen(function* () {
          const { directory, target } = yield* at(name)
          const outcomes = yield* unharmed(
            target,
            Effect.flatMap(FileSink.make({ directory }), (sink) => publish(sink, "a", "b"))
          )
          assert.deepStrictEqual(
            outcomes.map(({ _tag }) => _tag),
            ["Published", "Published"]
          )
        })
      )
    }

    for (const name of [".lock", ".next-version", ".feed-id", ".placing"]) {
      it.scopedLive(`in the place of ${name} is refused with its name, or replaced`, () =>
        Effect.gen(function* () {
          const { directory, target } = yield* at(name)
          const opened = yield* unharmed(target, Effect.either(FileSink.make({ directory })))
          if (opened._tag === "Left") {
            assert.strictEqual(opened.left.reason, "unusable")
            assert.include(opened.left.message, Path.join(directory, name))
            assert.notInclude(opened.left.message, "\n")
          } else {
            // Only an empty directory is what the lock is.
            assert.isTrue(name === ".lock" && what === "a directory")
          }
        })
      )
    }

    it.scopedLive("in the place of .feed-id is a typed error of the source", () =>
      Effect.gen(function* () {
        const { directory, target } = yield* at(".feed-id")
        const source = yield* FileSource.make({ directory })
        const error = yield* unharmed(target, Effect.flip(source.look))
        assert.strictEqual(error.reason, "malformed")
        assert.include(error.message, ".feed-id")
      })
    )

    it.scopedLive("in the place of an artifact is a typed error, and is replaced by a put where it can be", () =>
      Effect.gen(function* () {
        const bytes = new TextEncoder().encode("artifact")
        const base = yield* inDirectory
        const directory = Path.join(base, "artifacts")
        const target = Path.join(base, "target")
        yield* Effect.promise(() => Fs.writeFile(target, "artifact"))
        const store = yield* FileArtifactStore.make({ directory })
        const reference = yield* store.put(bytes)
        const file = Path.join(directory, reference.artifact_ref)
        yield* Effect.promise(() => Fs.rm(file))
        yield* Effect.promise(() => plant(file, target))
        const { mtimeMs } = yield* Effect.promise(() => Fs.stat(target))
        const error = yield* unharmed(target, Effect.flip(store.get(reference)))
        assert.include(["corrupt", "invalid", "missing", "unavailable"], error.reason)
        // A sweep finds none there, and removes none.
        const found = yield* unharmed(target, Stream.runCollect(store.list))
        const isFile = what.includes("sparse file")
        assert.strictEqual(found.length, isFile ? 1 : 0)
        assert.strictEqual(yield* unharmed(target, store.remove(reference.artifact_ref, Date.now() + 60_000)), isFile)
        if (isFile) yield* Effect.promise(() => plant(file, target))
        const again = yield* unharmed(target, Effect.either(store.put(bytes)))
        if (what === "a directory") {
          assert.strictEqual(again._tag === "Left" ? again.left.reason : "", "unavailable")
        } else {
          assert.deepStrictEqual(yield* store.get(reference), bytes)
        }
        assert.strictEqual((yield* Effect.promise(() => Fs.stat(target))).mtimeMs, mtimeMs)
      })
    )

    it.live("in the place of a file that a setting names is an error, and never blocks", () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { directory, target } = yield* at("creds")
          const result = yield* unharmed(target, Effect.either(readSecret(Path.join(directory, "creds"))))
          // Secrets are mounted as links.
          assert.strictEqual(result._tag, what === "a symbolic link" ? "Right" : "Left")
        })
      )
    )
  })
}

describe("a shared directory", () => {
  it.scopedLive("has new temporary files with unpredictable names", () =>
    Effect.gen(function* () {
      const directory = yield* inDirectory
      const path = Path.join(directory, "file")
      const target = Path.join(directory, "target")
      yield* Effect.promise(async () => {
        await Fs.writeFile(target, "theirs")
        await Fs.symlink(target, path)
      })
      const failed = yield* Effect.flip(Effect.tryPromise(() => RegularFile.create(path, 0o600)))
      assert.include(String(failed.error), "EEXIST")
      assert.strictEqual(yield* Effect.promise(() => Fs.readFile(target, "utf8")), "theirs")
    })
  )

  it.scopedLive("below links that an operator set is used as any other", () =>
    Effect.gen(function* () {
      const base = yield* inDirectory
      yield* Effect.promise(async () => {
        await Fs.mkdir(Path.join(base, "mnt", "feed"), { recursive: true })
        await Fs.mkdir(Path.join(base, "mnt", "artifacts"))
        await Fs.symlink(Path.join(base, "mnt"), Path.join(base, "volume"))
        await Fs.symlink(Path.join(base, "volume", "feed"), Path.join(base, "feed"))
        await Fs.symlink(Path.join(base, "volume", "artifacts"), Path.join(base, "artifacts"))
      })
      const directory = Path.join(base, "feed")
      yield* Effect.scoped(Effect.flatMap(FileSink.make({ directory }), (sink) => publish(sink, "a", "b")))
      const source = yield* FileSource.make({ directory })
      const events = yield* Stream.runCollect(Stream.take(source.events(0), 2))
      assert.strictEqual(events.length, 2)
      const store = yield* FileArtifactStore.make({ directory: Path.join(base, "artifacts") })
      const bytes = new TextEncoder().encode("x")
      assert.deepStrictEqual(yield* store.get(yield* store.put(bytes)), bytes)
      assert.strictEqual((yield* Stream.runCollect(store.list)).length, 1)
    })
  )

  it.scopedLive("writes no artifact through a link that replaced one of its directories", () =>
    Effect.gen(function* () {
      const base = yield* inDirectory
      const directory = Path.join(base, "artifacts")
      yield* Effect.promise(async () => {
        await Fs.mkdir(directory)
        await Fs.mkdir(Path.join(base, "elsewhere"))
        await Fs.symlink(Path.join(base, "elsewhere"), Path.join(directory, "sha256"))
      })
      const store = yield* FileArtifactStore.make({ directory })
      const failed = yield* Effect.flip(store.put(new TextEncoder().encode("x")))
      assert.strictEqual(failed.reason, "unavailable")
      assert.include(failed.message, "leads out of the directory")
      const files = yield* Effect.promise(() => Fs.readdir(Path.join(base, "elsewhere"), { recursive: true }))
      assert.isTrue(files.every((name) => name.length === 2))
    })
  )

  it.scopedLive("accepts artifacts up to a size, and names the limit", () =>
    Effect.gen(function* () {
      const directory = yield* inDirectory
      const large = yield* FileArtifactStore.make({ directory })
      const small = yield* FileArtifactStore.make({ directory, maxBytes: 10 })
      const reference = yield* large.put(new Uint8Array(11))
      const refused = yield* Effect.flip(small.put(new Uint8Array(11)))
      assert.deepInclude({ ...refused }, { reason: "invalid", artifactRef: reference.artifact_ref })
      assert.include((yield* Effect.flip(small.get(reference))).message, "it has 11 bytes and the maximum is 10")
      assert.strictEqual((yield* small.get(yield* small.put(new Uint8Array(10)))).length, 10)
    })
  )

  it.scopedLive("reads large files one at a time, and bounded bytes ahead", () =>
    Effect.gen(function* () {
      const directory = yield* inDirectory
      const sink = yield* FileSink.make({ directory })
      const megabyte = (n: number) => {
        const { payload, ...rest } = event(`e${n}`)
        return { ...rest, payload: `${payload.slice(0, -1)},"text":"${"x".repeat(4 * 1024 ** 2)}"}` }
      }
      for (let n = 1; n <= 40; n++) yield* sink.publish({ events: [megabyte(n)], deadline: Infinity })
      const source = yield* FileSource.make({ directory })
      let given = 0
      const most = yield* source.events(0).pipe(
        Stream.chunks,
        Stream.map((chunk) => {
          given += chunk.length
          return [...chunk].reduce((bytes, { text }) => bytes + text.length, 0)
        }),
        Stream.takeUntil(() => given === 40),
        Stream.runFold(0, Math.max)
      )
      assert.isAtMost(most, 16 * 1024 ** 2)
    })
  )
})

describe("permissions", () => {
  const modeOf = (path: string) => Effect.promise(async () => ((await Fs.stat(path)).mode & 0o777).toString(8))

  for (const [access, file, made] of [
    [undefined, "600", "700"],
    ["owner", "600", "700"],
    ["group", "640", "750"],
    ["all", "644", "755"]
  ] as const) {
    for (const mask of [0o022, 0o077, 0]) {
      it.scopedLive(`of access ${access ?? "by default"} are ${file} and ${made} under umask ${mask.toString(8)}`, () =>
        Effect.gen(function* () {
          const base = yield* inDirectory
          const before = process.umask(mask)
          yield* Effect.addFinalizer(() => Effect.sync(() => process.umask(before)))
          const options = { directory: Path.join(base, "made", "feed"), access }
          yield* Effect.scoped(Effect.flatMap(FileSink.make(options), (sink) => publish(sink, "a", "b")))
          for (const name of ["a.json", "b.json", ".feed-id"]) {
            assert.strictEqual(yield* modeOf(Path.join(options.directory, name)), file, name)
          }
          for (const path of ["made", "made/feed"]) assert.strictEqual(yield* modeOf(Path.join(base, path)), made)
          // Nobody else's business.
          assert.strictEqual(yield* modeOf(Path.join(options.directory, ".next-version")), "600")
          assert.strictEqual(yield* modeOf(Path.join(options.directory, ".lock")), "700")
          const artifacts = Path.join(base, "artifacts")
          const store = yield* FileArtifactStore.make({ directory: artifacts, access })
          const { artifact_ref } = yield* store.put(new Uint8Array(1))
          assert.strictEqual(yield* modeOf(Path.join(artifacts, artifact_ref)), file)
          for (const path of [".", "sha256", Path.dirname(artifact_ref)]) {
            assert.strictEqual(yield* modeOf(Path.join(artifacts, path)), made)
          }
        })
      )
    }
  }

  it.scopedLive("of an existing directory stay, and its group is inherited", () =>
    Effect.gen(function* () {
      const directory = yield* inDirectory
      yield* Effect.promise(() => Fs.chmod(directory, 0o2775))
      yield* Effect.flatMap(FileSink.make({ directory: Path.join(directory, "feed"), access: "group" }), (sink) =>
        publish(sink, "a")
      )
      assert.strictEqual(yield* modeOf(directory), "775")
      const { mode } = yield* Effect.promise(() => Fs.stat(Path.join(directory, "feed")))
      assert.strictEqual((mode & 0o2000) !== 0, true)
    })
  )
})

describe("the clock", () => {
  it.scopedLive("of the machine is not compared with that of the files", () =>
    Effect.gen(function* () {
      const directory = yield* inDirectory
      const place = (version: number) =>
        Effect.promise(async () => {
          await Fs.writeFile(
            Path.join(directory, ".tmp-x"),
            JSON.stringify({ event_id: `e${version}`, type: "x", control_version: version })
          )
          await Fs.rename(Path.join(directory, ".tmp-x"), Path.join(directory, `e${version}.json`))
        })
      // Hours ahead and hours behind: a file neither waits that long nor counts as old at once.
      for (const skew of [-7_200_000, 7_200_000]) {
        const real = Clock.make()
        const nanos = BigInt(skew) * 1_000_000n
        const skewed: Clock.Clock = Object.assign(Object.create(real) as Clock.Clock, {
          currentTimeMillis: Effect.map(real.currentTimeMillis, (now) => now + skew),
          currentTimeNanos: Effect.map(real.currentTimeNanos, (now) => now + nanos)
        })
        for (const name of yield* Effect.promise(() => Fs.readdir(directory))) {
          yield* Effect.promise(() => Fs.rm(Path.join(directory, name)))
        }
        const versions: Array<number> = []
        const reading = (settle: Duration.DurationInput, position: number) =>
          Effect.flatMap(FileSource.make({ directory, settle }), (source) =>
            source.events(position).pipe(
              Stream.runForEach(({ version }) => Effect.sync(() => versions.push(version))),
              Effect.withClock(skewed),
              Effect.forkScoped
            )
          )
        const arrives = (version: number) =>
          Effect.repeat(Effect.sleep("10 millis"), { until: () => versions.includes(version) }).pipe(
            Effect.timeoutFail({ duration: "1 minute", onTimeout: () => `${version} has not come: ${versions.join()}` })
          )
        yield* place(1)
        yield* place(3)
        // Less than the skew, and more than any machine takes.
        const patient = yield* reading("1 hour", 0)
        yield* arrives(1)
        // Time for 3 to come too early.
        yield* Effect.sleep("400 millis")
        assert.deepStrictEqual(versions, [1])
        yield* place(2)
        yield* arrives(3)
        assert.deepStrictEqual(versions, [1, 2, 3])
        yield* Fiber.interrupt(patient)
        const fiber = yield* reading("800 millis", 3)
        yield* place(5)
        yield* arrives(5)
        assert.deepStrictEqual(versions, [1, 2, 3, 5])
        yield* Fiber.interrupt(fiber)
      }
    })
  )
})
