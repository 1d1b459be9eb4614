import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Clock, Context, Effect, Exit, FastCheck as fc, Fiber, Layer, Logger, Scope } from "effect"
import * as Esbuild from "esbuild"
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import { once } from "node:events"
import * as FsSync from "node:fs"
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { vi } from "vitest"
import { ControlEvent, ControlVersion, EventId, OrderingKey, Sink } from "../../src/index.js"
import { FileSink } from "../../src/file/index.js"
import { fileName } from "../../src/file/internal/fileName.js"

/** What the sink does to the disk, and how the disk fails. */
const disk = vi.hoisted(() => ({
  log: [] as Array<string>,
  /** The code of the error with which an operation fails. */
  fail: undefined as ((operation: string) => string | undefined) | undefined,
  /** Delays what makes an event appear. */
  wait: undefined as Promise<unknown> | undefined
}))

vi.mock("node:fs/promises", async (original) => {
  const real = await original<typeof Fs>()
  const step = (operation: string) => {
    const code = disk.fail?.(operation)
    disk.log.push(operation)
    if (code !== undefined) throw Object.assign(new Error(`${code}: as told, ${operation}`), { code })
  }
  // Temporary names are random: they are numbered as they come.
  const temporary = new Map<string, string>()
  const nameOf = (path: unknown) => {
    const name = Path.basename(String(path))
    if (!name.startsWith(".tmp-")) return name
    if (!temporary.has(name)) temporary.set(name, `.tmp-${temporary.size}`)
    return temporary.get(name)!
  }
  return {
    ...real,
    open: async (path: string, flags: string | number, mode?: number) => {
      const creates = typeof flags === "number" && (flags & FsSync.constants.O_CREAT) !== 0
      step(`${creates ? "open" : "read"} ${nameOf(path)}`)
      const handle = await real.open(path, flags, mode)
      const sync = handle.sync.bind(handle)
      handle.sync = async () => {
        step(`sync ${nameOf(path)}`)
        await sync()
      }
      return handle
    },
    rename: async (from: string, to: string) => {
      step(`rename ${nameOf(from)} ${nameOf(to)}`)
      if (to.endsWith(".json")) await disk.wait
      await real.rename(from, to)
    }
  }
})

const event = (id: string, key = "", text = ""): Sink.OutboundEvent => {
  const eventId = EventId.make(id)
  const event = { event_id: eventId, type: "test", text }
  return {
    eventId,
    orderingKey: OrderingKey.make(key),
    event,
    payload: JSON.stringify(event),
    traceparent: undefined,
    createdAt: 0,
    attemptCount: 0
  }
}

const publish = (sink: Sink.Sink["Type"], ...events: [Sink.OutboundEvent, ...Array<Sink.OutboundEvent>]) =>
  sink.publish({ events, deadline: Infinity })

const eventsOf = (prefix: string, count: number, text = "") =>
  Array.from({ length: count }, (_, n) => event(`${prefix}${n}`, "", text)) as [Sink.OutboundEvent]

/** Versions, `again` behind those of duplicates, or what else became of the events. */
const line = (outcomes: ReadonlyArray<Sink.Outcome>) =>
  outcomes.map((outcome) =>
    outcome._tag === "Published" ? `${outcome.version}${outcome.duplicate ? " again" : ""}` : outcome._tag
  )

const inDirectory = Effect.acquireRelease(
  Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "file-sink-"))),
  (directory) => Effect.promise(() => Fs.rm(directory, { recursive: true, force: true }))
)

const open = (directory: string) => FileSink.make({ directory })

const list = (directory: string) => Effect.promise(() => Fs.readdir(directory))

const eventFiles = (directory: string) =>
  Effect.map(list(directory), (names) => names.filter((name) => !name.startsWith(".")))

const temporaries = (directory: string) =>
  Effect.map(list(directory), (names) => names.filter((name) => name.startsWith(".tmp-")))

const nextVersion = (directory: string) =>
  Effect.promise(async () => Number(await Fs.readFile(Path.join(directory, ".next-version"), "utf8")))

const logged = <A, E, R>(self: Effect.Effect<A, E, R>) => {
  const messages: Array<string> = []
  const logger = Logger.make(({ message }) => void messages.push(String(message)))
  return Effect.map(Effect.provide(self, Logger.replace(Logger.defaultLogger, logger)), (value) => ({
    value,
    messages
  }))
}

describe("the names of files", () => {
  it("are the ids where that is safe, and readable otherwise", () => {
    assert.deepStrictEqual(
      ["0198f2c0-6a3e-7000-8000-1b2c3d4e5f60", "a.b_c-1", "a/b", "A", ".", "..", "a.", "é", "con", "nul.x", "a%2F"].map(
        fileName
      ),
      [
        "0198f2c0-6a3e-7000-8000-1b2c3d4e5f60.json",
        "a.b_c-1.json",
        "a%2Fb.json",
        "%41.json",
        "%2E.json",
        "%2E%2E.json",
        "a%2E.json",
        "%C3%A9.json",
        "%63on.json",
        "%6Eul.x.json",
        "a%252%46.json"
      ]
    )
    assert.match(fileName("x".repeat(201)), /^sha256=[0-9a-f]{64}\.json$/)
    assert.strictEqual(fileName("x".repeat(200)), `${"x".repeat(200)}.json`)
    // An id may look like the name of another.
    const hashed = fileName("x".repeat(201)).replace(".json", "")
    assert.notStrictEqual(fileName(hashed), `${hashed}.json`)
  })

  // Ids from few characters, so that they come close to one another, and of any.
  const close = fc.string({
    unit: fc.constantFrom("a", "A", ".", "%", "2", "E", "e", "/", "=", "é", "É", "💥"),
    maxLength: 5
  })
  const long = fc.tuple(fc.constantFrom("x", "X", "sha256="), fc.integer({ min: 195, max: 205 }), close)
  const id = fc
    .oneof(
      close,
      fc.string({ unit: "binary", maxLength: 80 }),
      long.map(([text, length, end]) => text.repeat(length).slice(0, length) + end)
    )
    .filter((id) => id.length > 0)

  it.prop("are safe on any file system", [id], ([id]) => {
    assert.match(fileName(id), /^(?:[a-z0-9_%-]|sha256=)(?:[a-z0-9_.-]|%[0-9A-F]{2}|[0-9A-F]{2})*\.json$/)
    assert.isAtMost(fileName(id).length, 205)
  })

  it.prop(
    "differ for different ids, also where case does not count",
    [id, id],
    ([one, other]) => {
      assert.strictEqual(fileName(one).toLowerCase() === fileName(other).toLowerCase(), one === other)
    },
    { fastCheck: { numRuns: 5000 } }
  )
})

describe("the feed", () => {
  it.scopedLive("is a file an event with its exact text and the version", () =>
    Effect.gen(function* () {
      const directory = Path.join(yield* inDirectory, "made", "when", "missing")
      const sink = yield* open(directory)
      const payload = `{ "type":"x", "n":1.0,\n"event_id":"A/b" }`
      yield* publish(sink, event("first"), { ...event("A/b"), payload })
      assert.deepStrictEqual((yield* eventFiles(directory)).sort(), ["%41%2Fb.json", "first.json"])
      assert.strictEqual(
        yield* Effect.promise(() => Fs.readFile(Path.join(directory, "%41%2Fb.json"), "utf8")),
        ControlEvent.withControlVersion(payload, ControlVersion.make(2))
      )
    })
  )

  it.scopedLive("shows whole events in the order of their versions to concurrent readers", () =>
    Effect.gen(function* () {
      const directory = yield* inDirectory
      const sink = yield* open(directory)
      let looks = 0
      const look = Effect.gen(function* () {
        // No version is to be seen before those below it.
        const versions: Array<number> = []
        for (const name of yield* eventFiles(directory)) {
          const text = yield* Effect.promise(() => Fs.readFile(Path.join(directory, name), "utf8"))
          versions.push((JSON.parse(text) as { control_version: number }).control_version)
        }
        versions.sort((one, other) => one - other)
        looks++
        return versions
      })
      const seen = new Set<number>()
      const reader = yield* Effect.fork(
        Effect.forever(
          Effect.gen(function* () {
            const before = yield* look
            // A listing is not a snapshot: what it missed has to be there at the next one, below what it saw.
            const after = new Set(yield* look)
            for (let version = 1; version <= Math.max(0, ...before); version++) assert.isTrue(after.has(version))
            before.forEach((version) => seen.add(version))
          })
        )
      )
      yield* Effect.forEach(
        ["a", "b", "c", "d"],
        (key) => sink.publish({ events: eventsOf(key, 40, "x".repeat(20_000)), deadline: Infinity }),
        {
          concurrency: "unbounded"
        }
      )
      const exit = yield* Fiber.interrupt(reader)
      assert.isTrue(Exit.isInterrupted(exit), String(exit))
      assert.isAbove(looks, 4)
      assert.isAbove(seen.size, 0)
      assert.deepStrictEqual(yield* temporaries(directory), [])
    })
  )

  it.scopedLive("is on the disk before the sink returns an outcome", () =>
    Effect.gen(function* () {
      const directory = yield* inDirectory
      const sink = yield* open(directory)
      disk.log.length = 0
      yield* publish(sink, event("a"), event("b"))
      const relevant = disk.log.filter((operation) => /^(sync|rename)/.test(operation))
      const at = Path.basename(directory)
      // First the versions are reserved, then the texts are written at a time. What is about to appear follows, which a key
      // of two events wants, and then the names in their order.
      const numbers = new Map<string, string>()
      const inOrder = relevant.map((line) =>
        line.replace(/\.tmp-\d+/g, (name) => {
          if (!numbers.has(name)) numbers.set(name, `tmp${numbers.size + 1}`)
          return numbers.get(name)!
        })
      )
      assert.deepStrictEqual(inOrder.slice(0, 3), ["sync tmp1", "rename tmp1 .next-version", `sync ${at}`])
      assert.deepStrictEqual(inOrder.slice(3, 5), ["sync tmp2", "sync tmp3"])
      assert.deepStrictEqual(inOrder.slice(5, 8), ["sync tmp4", "rename tmp4 .placing", `sync ${at}`])
      assert.match(inOrder.slice(8, 10).join(), /^rename tmp[23] a\.json,rename tmp[23] b\.json$/)
      assert.deepStrictEqual(inOrder.slice(10), [`sync ${at}`])
      // Nothing of that where no key has two events.
      disk.log.length = 0
      yield* publish(sink, event("c", "k"), event("d", "l"))
      assert.notInclude(disk.log.join(), ".placing")
      // Also what was there before: who published it may have got no further.
      disk.log.length = 0
      assert.deepStrictEqual(line(yield* publish(sink, event("a"))), ["1 again"])
      assert.strictEqual(disk.log.at(-1), `sync ${at}`)
      // A made directory too, up to what was there.
      disk.log.length = 0
      yield* Effect.scoped(open(Path.join(directory, "one", "two")))
      assert.deepStrictEqual(disk.log.filter((operation) => operation.startsWith("sync")).slice(0, 2), [
        "sync one",
        `sync ${at}`
      ])
    })
  )

  it.scopedLive("fails an event whose file is not that event, and names the file", () =>
    Effect.gen(function* () {
      const directory = yield* inDirectory
      const sink = yield* open(directory)
      const broken: Record<string, string | undefined> = {
        half: `{"event_id":"half","type":"te`,
        other: `{"event_id":"another","type":"test","control_version":3}`,
        unversioned: `{"event_id":"unversioned","type":"test"}`,
        zero: `{"event_id":"zero","type":"test","control_version":0}`,
        none: "null",
        directory: undefined
      }
      for (const [id, text] of Object.entries(broken)) {
        const file = Path.join(directory, fileName(id))
        yield* Effect.promise(() => (text === undefined ? Fs.mkdir(file) : Fs.writeFile(file, text)))
        const outcomes = yield* publish(sink, event(id, "k"), event(`after-${id}`, "k"), event(`beside-${id}`, "l"))
        assert.deepStrictEqual(
          outcomes.map(({ _tag }) => _tag),
          ["EventFailed", "NotAttempted", "Published"]
        )
        const [failed] = outcomes
        assert.include(
          failed?._tag === "EventFailed" ? failed.message : "",
          `move it away to publish the event again: ${file} `
        )
        assert.notInclude(yield* eventFiles(directory), fileName(`after-${id}`))
        yield* Effect.promise(() => Fs.rm(file, { recursive: true }))
        assert.deepStrictEqual(
          (yield* publish(sink, event(id, "k"), event(`after-${id}`, "k"))).map(({ _tag }) => _tag),
          ["Published", "Published"]
        )
      }
    })
  )

  it.scopedLive("publishes nothing of a batch after its deadline, and keeps what it published before", () =>
    Effect.gen(function* () {
      const directory = yield* inDirectory
      const sink = yield* open(directory)
      // A clock that goes on by a millisecond each time it is asked: once for each event.
      const from = (start: number): Clock.Clock => {
        let now = start
        return Object.assign(Clock.make(), { currentTimeMillis: Effect.sync(() => now++) })
      }
      const batch = { events: eventsOf("e", 5), deadline: 103 } as const
      const { messages, value } = yield* logged(Effect.withClock(sink.publish(batch), from(100)))
      assert.deepStrictEqual(line(value), ["1", "2", "3", "NotAttempted", "NotAttempted"])
      assert.include(messages.join(), "in part")
      assert.deepStrictEqual((yield* eventFiles(directory)).sort(), ["e0.json", "e1.json", "e2.json"])
      assert.deepStrictEqual(yield* temporaries(directory), [])
      const late = yield* Effect.flip(
        Effect.withClock(sink.publish({ events: eventsOf("f", 2), deadline: 103 }), from(103))
      )
      assert.strictEqual(late.reason, "timeout")
      assert.strictEqual((yield* eventFiles(directory)).length, 3)
    })
  )

  it.scopedLive("waits for operations that cannot be canceled when interrupted", () =>
    Effect.gen(function* () {
      const directory = yield* inDirectory
      const sink = yield* open(directory)
      yield* publish(sink, event("first"))
      let release = () => {}
      disk.wait = new Promise<void>((resolve) => (release = resolve))
      const fiber = yield* Effect.fork(publish(sink, event("a"), event("b")))
      yield* Effect.repeat(Effect.sleep(1), { until: () => /^rename \.tmp-\d+ a\.json$/.test(disk.log.at(-1) ?? "") })
      yield* Fiber.interruptFork(fiber)
      yield* Effect.sleep(20)
      const ended = fiber.unsafePoll() !== null
      disk.wait = undefined
      release()
      yield* Fiber.await(fiber)
      assert.isFalse(ended)
      assert.deepStrictEqual((yield* eventFiles(directory)).sort(), ["a.json", "first.json"])
      assert.deepStrictEqual(yield* temporaries(directory), [])
      assert.deepStrictEqual(line(yield* publish(sink, event("a"), event("b"))), ["2 again", "4"])
    })
  )

  it.scopedLive("has no temporary files after an interruption, and continues", () =>
    Effect.gen(function* () {
      const directory = yield* inDirectory
      const sink = yield* open(directory)
      for (let millis = 0; millis < 12; millis++) {
        const fiber = yield* Effect.fork(sink.publish({ events: eventsOf(`${millis}-`, 30), deadline: Infinity }))
        yield* Effect.sleep(millis)
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(yield* temporaries(directory), [])
      }
      assert.strictEqual((yield* publish(sink, event("last")))[0]?._tag, "Published")
    })
  )
})

describe("versions", () => {
  it.scopedLive("continue without a hole after a close, and are rarely written", () =>
    Effect.gen(function* () {
      const directory = yield* inDirectory
      yield* Effect.scoped(Effect.flatMap(open(directory), (sink) => publish(sink, event("a"), event("b"))))
      assert.strictEqual(yield* nextVersion(directory), 3)
      const outcomes = yield* Effect.scoped(
        Effect.gen(function* () {
          const sink = yield* open(directory)
          const first = yield* publish(sink, event("c"))
          disk.log.length = 0
          const more = yield* Effect.forEach(["a", "d", "e", "b"], (id) => publish(sink, event(id)))
          assert.notInclude(disk.log.join(), ".next-version")
          return [first, ...more].flat()
        })
      )
      assert.deepStrictEqual(line(outcomes), ["3", "1 again", "4", "5", "2 again"])
      assert.strictEqual(yield* nextVersion(directory), 6)
    })
  )

  it.scopedLive("are never used twice, even by batches larger than a reservation", () =>
    Effect.gen(function* () {
      const directory = yield* inDirectory
      const sink = yield* open(directory)
      const outcomes = yield* sink.publish({ events: eventsOf("e", 1500), deadline: Infinity })
      assert.deepStrictEqual(
        line(outcomes),
        Array.from({ length: 1500 }, (_, n) => `${n + 1}`)
      )
      assert.isAbove(yield* nextVersion(directory), 1500)
    })
  )

  for (const text of [undefined, "", "x", "-4", "0", "1.5", "9007199254740993"]) {
    it.scopedLive(
      `are found in the files where the version file is ${text === undefined ? "missing" : `"${text}"`}`,
      () =>
        Effect.gen(function* () {
          const directory = yield* inDirectory
          yield* Effect.scoped(Effect.flatMap(open(directory), (sink) => publish(sink, ...eventsOf("e", 20))))
          yield* Effect.promise(async () => {
            await Fs.writeFile(Path.join(directory, "half.json"), "{")
            const file = Path.join(directory, ".next-version")
            await (text === undefined ? Fs.rm(file) : Fs.writeFile(file, text))
          })
          const { messages } = yield* logged(Effect.scoped(open(directory)))
          assert.strictEqual(messages.length, 1)
          assert.include(
            messages[0],
            `${text === undefined ? "is missing" : "is malformed"}: read 21 event files, the next version is 21`
          )
          // And the next start need not look again.
          disk.log.length = 0
          const again = yield* logged(
            Effect.scoped(Effect.flatMap(open(directory), (sink) => publish(sink, event("next"))))
          )
          assert.deepStrictEqual(line(again.value), ["21"])
          assert.deepStrictEqual(again.messages, [])
          assert.notInclude(disk.log.join(), "read e1.json")
        })
    )
  }

  it.scopedLive("start at 1 in an empty directory, without a log line", () =>
    Effect.gen(function* () {
      const directory = yield* inDirectory
      const { messages, value } = yield* logged(
        Effect.scoped(Effect.flatMap(open(directory), (sink) => publish(sink, event("a"))))
      )
      assert.deepStrictEqual(line(value), ["1"])
      assert.deepStrictEqual(messages, [])
    })
  )
})

describe("one publisher a directory", () => {
  const refusal = (directory: string) => Effect.flip(Effect.scoped(open(directory)))

  it.scopedLive("rejects a second layer of the same process until the first is closed", () =>
    Effect.gen(function* () {
      const directory = yield* inDirectory
      const scope = yield* Scope.make()
      const sink = yield* Scope.extend(open(directory), scope)
      const refused = yield* refusal(`${directory}/../${Path.basename(directory)}`)
      assert.strictEqual(refused.reason, "locked")
      assert.strictEqual(refused.message, `The directory ${directory} is in use by this process ${process.pid}`)
      assert.strictEqual((yield* publish(sink, event("a")))[0]?._tag, "Published")
      yield* Scope.close(scope, Exit.void)
      yield* Effect.scoped(open(directory))
      const closed = yield* Effect.flip(publish(sink, event("b")))
      assert.include(closed.message, "the sink is closed")
      assert.deepStrictEqual(yield* list(Path.join(directory, ".lock")), [])
    })
  )

  it.scopedLive("gives a directory of a dead process to one of many", () =>
    Effect.gen(function* () {
      const directory = yield* inDirectory
      yield* Effect.promise(() => Fs.mkdir(Path.join(directory, ".lock")))
      const lock = (name: string) => Fs.writeFile(Path.join(directory, ".lock", name), "")
      for (let round = 0; round < 10; round++) {
        yield* Effect.promise(() => lock(locks.ofADeadProcess()))
        yield* Effect.scoped(
          Effect.gen(function* () {
            const exits = yield* Effect.forEach(Array.from({ length: 8 }), () => Effect.either(open(directory)), {
              concurrency: "unbounded"
            })
            assert.isAtMost(exits.filter((exit) => exit._tag === "Right").length, 1)
          })
        )
      }
      yield* Effect.scoped(open(directory))
    })
  )

  const self = () => {
    // The second field is in parentheses and may hold blanks.
    const stat = FsSync.readFileSync("/proc/self/stat", "utf8")
      .replace(/\(.*\)/, "()")
      .split(" ")
    const boot = FsSync.readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()
    const namespace = /\d+/.exec(FsSync.readlinkSync("/proc/self/ns/pid"))![0]
    return { pid: process.pid, started: stat[21]!, boot, namespace, host: Os.hostname() }
  }
  const nameOf = (changes: Partial<ReturnType<typeof self>>) => {
    const { boot, host, namespace, pid, started } = { ...self(), ...changes }
    return [pid, started, boot, namespace, "0a1b2c3d", host].join(".")
  }
  const locks = {
    ofALivingProcess: () => nameOf({}),
    ofADeadProcess: () => nameOf({ pid: 4_194_304 + 1 }),
    ofAnEarlierProcessWithAPidInUse: () => nameOf({ started: "1" }),
    ofAnEarlierBoot: () => nameOf({ boot: "00000000-0000-0000-0000-000000000000" }),
    ofAnotherHost: () => nameOf({ host: "elsewhere.example" }),
    ofAnotherContainer: () => nameOf({ namespace: "1" }),
    ofSomethingElse: () => "lock"
  }

  for (const [lock, expected] of [
    ["ofADeadProcess", "taken"],
    ["ofAnEarlierProcessWithAPidInUse", "taken"],
    ["ofAnEarlierBoot", "taken"],
    ["ofALivingProcess", new RegExp(`is in use by this process ${process.pid}$`)],
    ["ofAnotherHost", /is locked by process \d+ on host elsewhere\.example, which cannot be judged from here: /],
    ["ofAnotherContainer", /is locked by process \d+ on host .*, which cannot be judged from here: /],
    ["ofSomethingElse", /is locked by something, which cannot be judged from here: /]
  ] as const) {
    it.scopedLive(`${expected === "taken" ? "takes" : "refuses"} a lock ${lock}`, () =>
      Effect.gen(function* () {
        const directory = yield* inDirectory
        const file = Path.join(directory, ".lock", locks[lock]())
        yield* Effect.promise(async () => {
          await Fs.mkdir(Path.dirname(file))
          await Fs.writeFile(file, "")
        })
        if (expected === "taken") {
          yield* open(directory)
          assert.isFalse(FsSync.existsSync(file))
        } else {
          const refused = yield* refusal(directory)
          assert.strictEqual(refused.reason, "locked")
          assert.match(refused.message, expected)
          assert.notInclude(refused.message, "\n")
          if (lock !== "ofALivingProcess") {
            assert.include(refused.message, `if it no longer runs, delete ${file}`)
            yield* Effect.promise(() => Fs.rm(file))
            yield* open(directory)
          }
        }
      })
    )
  }
})

describe("another process", () => {
  const root = fileURLToPath(new URL("../..", import.meta.url))
  let bundle = ""

  // Publishes batches of three without end, and prints each event once it was answered.
  const program = `
    import { Effect, Exit, Layer, ManagedRuntime } from "effect"
    import { Sink } from "./src/Sink.ts"
    import * as FileSink from "./src/file/FileSink.ts"
    const runtime = ManagedRuntime.make(FileSink.layer({ directory: process.argv[2] }))
    const event = (id) => ({ eventId: id, orderingKey: "", payload: JSON.stringify({ event_id: id, type: "test" }) })
    const built = await runtime.runPromiseExit(Sink)
    if (Exit.isFailure(built)) {
      console.log("refused " + built.cause.error.message)
      process.exit(1)
    }
    console.log("opened")
    for (let n = 0; process.argv[3] === "publish"; n += 3) {
      const events = [event("c" + n), event("c" + (n + 1)), event("c" + (n + 2))]
      const outcomes = await runtime.runPromise(built.value.publish({ events, deadline: Infinity }))
      for (const [index, { version }] of outcomes.entries()) console.log(events[index].eventId + " " + version)
    }
    setInterval(() => {}, 1000)`

  beforeAll(async () => {
    // Below the project, so that the packages are found from there.
    bundle = await Fs.mkdtemp(Path.join(root, "node_modules", ".file-sink-test-"))
    await Esbuild.build({
      stdin: { contents: program, resolveDir: root, loader: "ts" },
      outfile: Path.join(bundle, "child.mjs"),
      bundle: true,
      packages: "external",
      platform: "node",
      format: "esm"
    })
  })

  afterAll(() => Fs.rm(bundle, { recursive: true, force: true }))

  interface Child {
    readonly process: ChildProcess
    readonly lines: Array<string>
    /** Waits until it has printed so many lines. */
    readonly printed: (count: number) => Effect.Effect<void>
    readonly kill: Effect.Effect<void>
  }

  const start = (...args: Array<string>): Effect.Effect<Child, never, Scope.Scope> =>
    Effect.acquireRelease(
      Effect.sync((): Child => {
        const child = spawn(process.execPath, [Path.join(bundle, "child.mjs"), ...args], {
          stdio: ["ignore", "pipe", "inherit"]
        })
        const ended = once(child, "exit")
        const lines: Array<string> = []
        createInterface({ input: child.stdout }).on("line", (line) => lines.push(line))
        return {
          process: child,
          lines,
          printed: (count) =>
            Effect.repeat(Effect.sleep(5), { until: () => lines.length >= count || child.exitCode !== null }),
          kill: Effect.promise(async () => {
            child.kill("SIGKILL")
            await ended
          })
        }
      }),
      ({ kill }) => kill
    )

  it.scopedLive("is refused, and refuses, while the holder lives; the lock does not survive a kill -9", () =>
    Effect.gen(function* () {
      const directory = yield* inDirectory
      const holder = yield* start(directory)
      yield* holder.printed(1)
      assert.deepStrictEqual(holder.lines, ["opened"])
      const inUse = `The directory ${directory} is in use by process ${holder.process.pid}`
      assert.strictEqual((yield* Effect.flip(Effect.scoped(open(directory)))).message, inUse)
      const second = yield* start(directory)
      yield* second.printed(1)
      assert.deepStrictEqual(second.lines, [`refused ${inUse}`])
      yield* holder.kill
      yield* open(directory)
    })
  )

  it.scopedLive("that is killed while it publishes loses no published event, and no version is used twice", () =>
    Effect.gen(function* () {
      const directory = yield* inDirectory
      let lowest = 0
      const answered = new Map<string, string>()
      for (const lines of [20, 90]) {
        const child = yield* start(directory, "publish")
        yield* child.printed(lines)
        yield* child.kill
        assert.isAtLeast(child.lines.length, lines)
        child.lines.slice(1).forEach((line) => {
          const [id, version] = line.split(" ")
          if (answered.has(id!)) assert.strictEqual(answered.get(id!), version)
          answered.set(id!, version!)
        })
        // As a crash leaves it.
        yield* Effect.promise(() => Fs.writeFile(Path.join(directory, ".tmp-77"), "{"))
        yield* Effect.scoped(
          Effect.gen(function* () {
            const sink = yield* open(directory)
            assert.deepStrictEqual(yield* temporaries(directory), [])
            const versions: Array<number> = []
            for (const name of yield* eventFiles(directory)) {
              const text = yield* Effect.promise(() => Fs.readFile(Path.join(directory, name), "utf8"))
              versions.push((JSON.parse(text) as { control_version: number }).control_version)
            }
            assert.strictEqual(new Set(versions).size, versions.length)
            const outcomes = yield* publish(
              sink,
              event(`next-${lines}`),
              ...Array.from(answered.keys(), (id) => event(id))
            )
            assert.deepStrictEqual(
              line(outcomes.slice(1)),
              Array.from(answered.values(), (version) => `${version} again`)
            )
            const next = Number(line(outcomes)[0])
            assert.isAbove(next, Math.max(lowest, ...versions))
            // The gap is no larger than a reservation.
            assert.isAtMost(next, Math.max(...versions) + 1010)
            lowest = next
          })
        )
      }
    })
  )
})

describe("a directory that cannot be used", () => {
  it.scopedLive("fails the layer in one line", () =>
    Effect.gen(function* () {
      const directory = yield* inDirectory
      const file = Path.join(directory, "file")
      yield* Effect.promise(() => Fs.writeFile(file, ""))
      const failed = yield* Effect.flip(Layer.build(FileSink.layer({ directory: file })))
      assert.strictEqual(failed.reason, "unusable")
      assert.strictEqual(failed.message, `Cannot use the directory ${file}: EEXIST: file already exists`)
      assert.isDefined(failed.cause)
      const below = yield* Effect.flip(Layer.build(FileSink.layer({ directory: Path.join(file, "feed") })))
      assert.match(below.message, /ENOTDIR: not a directory$/)
      const virtual = yield* Effect.flip(Layer.build(FileSink.layer({ directory: "/proc/feed/below" })))
      assert.match(virtual.message, /ENOENT: no such file or directory$/)
    })
  )

  it.scopedLive("is unlocked when a start fails", () =>
    Effect.gen(function* () {
      const directory = yield* inDirectory
      yield* Effect.promise(() => Fs.mkdir(Path.join(directory, ".next-version")))
      const failed = yield* Effect.flip(Effect.scoped(open(directory)))
      assert.include(failed.message, "EISDIR")
      assert.deepStrictEqual(yield* list(Path.join(directory, ".lock")), [])
    })
  )

  const codes = {
    ENOSPC: "full",
    EDQUOT: "full",
    EROFS: "misconfigured",
    EACCES: "misconfigured",
    EIO: "unreachable",
    EMFILE: "unreachable"
  } as const

  for (const [code, reason] of Object.entries(codes)) {
    it.scopedLive(`makes the sink unavailable with nothing half-done: ${code}`, () =>
      Effect.gen(function* () {
        const directory = yield* inDirectory
        const sink = yield* open(directory)
        yield* publish(sink, event("before"))
        for (const operation of ["open .tmp-", "sync .tmp-", "rename .tmp-"]) {
          let count = 0
          disk.fail = (next) =>
            next.startsWith(operation) && (operation !== "open .tmp-" || ++count > 3) ? code : undefined
          const failed = yield* Effect.flip(sink.publish({ events: eventsOf("e", 10), deadline: Infinity })).pipe(
            Effect.ensuring(Effect.sync(() => (disk.fail = undefined)))
          )
          assert.strictEqual(failed.reason, reason)
          assert.strictEqual(failed.message, `Cannot publish into the directory ${directory}: ${code}: as told`)
          assert.deepStrictEqual(yield* eventFiles(directory), ["before.json"])
          assert.deepStrictEqual(yield* temporaries(directory), [])
        }
        // The events as well as the directory's names have to be on the disk.
        disk.fail = (next) => (next === `sync ${Path.basename(directory)}` ? code : undefined)
        const failed = yield* Effect.flip(publish(sink, event("e"))).pipe(
          Effect.ensuring(Effect.sync(() => (disk.fail = undefined)))
        )
        assert.strictEqual(failed.reason, reason)
        assert.match(line(yield* publish(sink, event("e"), event("f")))[0]!, / again$/)
      })
    )
  }

  it.scopedLive("ends a batch half-way, and returns what was published", () =>
    Effect.gen(function* () {
      const directory = yield* inDirectory
      const sink = yield* open(directory)
      disk.fail = (operation) =>
        operation.endsWith(" e3.json") && operation.startsWith("rename") ? "ENOSPC" : undefined
      const { messages, value } = yield* logged(
        sink
          .publish({ events: eventsOf("e", 6), deadline: Infinity })
          .pipe(Effect.ensuring(Effect.sync(() => (disk.fail = undefined))))
      )
      assert.deepStrictEqual(line(value), ["1", "2", "3", "NotAttempted", "NotAttempted", "NotAttempted"])
      assert.include(messages.join(), "in part")
      assert.deepStrictEqual((yield* eventFiles(directory)).sort(), ["e0.json", "e1.json", "e2.json"])
      assert.deepStrictEqual(yield* temporaries(directory), [])
    })
  )

  it.scopedLive("is waited for when it is gone, and the feed continues when it is back", () =>
    Effect.gen(function* () {
      const directory = Path.join(yield* inDirectory, "feed")
      const sink = yield* open(directory)
      yield* publish(sink, event("a"))
      yield* Effect.promise(() => Fs.rename(directory, `${directory}-away`))
      const gone = yield* Effect.flip(publish(sink, event("b")))
      assert.strictEqual(gone.reason, "unreachable")
      assert.strictEqual(
        gone.message,
        `Cannot publish into the directory ${directory}: ENOENT: no such file or directory`
      )
      assert.isFalse(FsSync.existsSync(directory))
      yield* Effect.promise(() => Fs.rename(`${directory}-away`, directory))
      assert.deepStrictEqual(line(yield* publish(sink, event("a"), event("b"))), ["1 again", "2"])
    })
  )

  it.scopedLive("is locked again if it was replaced, and the versions continue", () =>
    Effect.gen(function* () {
      const directory = Path.join(yield* inDirectory, "feed")
      yield* Effect.scoped(
        Effect.gen(function* () {
          const sink = yield* open(directory)
          yield* publish(sink, event("a"), event("b"))
          yield* Effect.promise(() => Fs.rm(directory, { recursive: true }))
          // Not at the first try, which leaves nothing half-done either.
          const obstacle = Path.join(directory, ".next-version")
          yield* Effect.promise(() => Fs.mkdir(obstacle, { recursive: true }))
          assert.include((yield* Effect.flip(publish(sink, event("a")))).message, "EISDIR")
          yield* Effect.promise(() => Fs.rmdir(obstacle))
          const { messages, value } = yield* logged(publish(sink, event("a"), event("c")))
          assert.deepStrictEqual(line(value), ["3", "4"])
          assert.deepStrictEqual(messages, [`The directory ${directory} was replaced; the feed continues in it`])
          assert.strictEqual((yield* Effect.flip(Effect.scoped(open(directory)))).reason, "locked")
          assert.isAbove(yield* nextVersion(directory), 4)
          // Somebody else was faster.
          yield* Effect.promise(() => Fs.rm(directory, { recursive: true }))
          const other = yield* open(directory)
          yield* publish(other, event("theirs"))
          const locked = yield* Effect.flip(publish(sink, event("d")))
          assert.strictEqual(locked.reason, "misconfigured")
          assert.include(locked.message, `is in use by this process ${process.pid}`)
        })
      )
      // The one that lost the directory wrote nothing into it at its end.
      assert.strictEqual(yield* nextVersion(directory), 2)
    })
  )
})

// Only root can mount.
const canMount = (() => {
  const at = FsSync.mkdtempSync(Path.join(Os.tmpdir(), "file-sink-mount-"))
  try {
    execFileSync("mount", ["-t", "tmpfs", "tmpfs", at], { stdio: "ignore" })
    execFileSync("umount", [at], { stdio: "ignore" })
    return true
  } catch {
    return false
  } finally {
    FsSync.rmdirSync(at)
  }
})()

describe.skipIf(!canMount)("a file system", () => {
  const mount = (...args: Array<string>) => Effect.sync(() => execFileSync("mount", args, { stdio: "ignore" }))
  const umount = (at: string) =>
    Effect.ignore(Effect.try(() => execFileSync("umount", ["-l", at], { stdio: "ignore" })))

  const mounted = (options: string) =>
    Effect.flatMap(inDirectory, (at) =>
      Effect.acquireRelease(Effect.as(mount("-t", "tmpfs", "-o", options, "tmpfs", at), at), () => umount(at))
    )

  it.scopedLive("that is full or read-only makes the sink unavailable until it is writable", () =>
    Effect.gen(function* () {
      const at = yield* mounted("size=256k")
      const directory = Path.join(at, "feed")
      const sink = yield* open(directory)
      yield* publish(sink, event("a"))
      const large = eventsOf("large", 10, "x".repeat(40_000))
      const full = yield* Effect.flip(sink.publish({ events: large, deadline: Infinity }))
      assert.strictEqual(full.reason, "full")
      assert.include(full.message, "ENOSPC: no space left on device")
      assert.deepStrictEqual(yield* eventFiles(directory), ["a.json"])
      assert.deepStrictEqual(yield* temporaries(directory), [])
      yield* mount("-o", "remount,ro,size=2m", at)
      assert.strictEqual((yield* Effect.flip(publish(sink, event("b")))).reason, "misconfigured")
      yield* mount("-o", "remount,rw,size=2m", at)
      const outcomes = yield* sink.publish({ events: large, deadline: Infinity })
      assert.isTrue(outcomes.every(({ _tag }) => _tag === "Published"))
    })
  )

  it.scopedLive("that is no longer mounted is waited for, and nothing is written to the directory below it", () =>
    Effect.gen(function* () {
      const [at, volume] = [yield* inDirectory, yield* mounted("size=1m")]
      yield* Effect.acquireRelease(mount("--bind", volume, at), () => umount(at))
      const context = yield* Layer.build(FileSink.layer({ directory: at }))
      const sink = Context.get(context, Sink.Sink)
      yield* publish(sink, event("a"))
      yield* umount(at)
      const gone = yield* Effect.flip(publish(sink, event("b")))
      assert.strictEqual(gone.reason, "unreachable")
      assert.match(gone.message, /is it mounted\?$/)
      assert.deepStrictEqual(yield* list(at), [])
      yield* mount("--bind", volume, at)
      assert.deepStrictEqual(line(yield* publish(sink, event("a"), event("b"))), ["1 again", "2"])
    })
  )
})
