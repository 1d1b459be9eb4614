/**
 * What a power loss leaves of the file feed, on a file system that keeps only what POSIX promises: contents after a sync of
 * the file, names after a sync of the directory, and of later changes of names any of them, in no order.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Random } from "effect"
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import { vi } from "vitest"
import { FileSink } from "../../src/file/index.js"
import { EventId, OrderingKey, type Sink } from "../../src/index.js"

/** A change of a name in a directory. */
type Change =
  | { readonly _tag: "link"; readonly path: string; readonly file: number }
  | { readonly _tag: "move"; readonly from: string; readonly to: string; readonly file: number }
  | { readonly _tag: "unlink"; readonly path: string }

const disk = vi.hoisted(() => ({
  /** What the directory held, and what has been done to it since, with the syncs in between. */
  log: [] as Array<unknown>,
  recording: false
}))

interface Recorded {
  readonly change?: Change
  /** A file whose contents are on the disk. */
  readonly file?: readonly [number, string]
  /** A directory whose names are on the disk. */
  readonly directory?: string
}

vi.mock("node:fs/promises", async (original) => {
  const real = await original<typeof Fs>()
  const record = (entry: Recorded) => {
    if (disk.recording) disk.log.push(entry)
  }
  const inode = async (path: string) => (await real.lstat(path)).ino
  return {
    ...real,
    open: async (path: string, flags: string | number, mode?: number) => {
      const handle = await real.open(path, flags, mode)
      const creates = typeof flags === "number" && (flags & 0o100) !== 0
      if (creates) record({ change: { _tag: "link", path, file: await inode(path) } })
      const sync = handle.sync.bind(handle)
      handle.sync = async () => {
        await sync()
        const stats = await handle.stat()
        record(stats.isDirectory() ? { directory: path } : { file: [stats.ino, await real.readFile(path, "utf8")] })
      }
      return handle
    },
    rename: async (from: string, to: string) => {
      const file = await inode(from)
      await real.rename(from, to)
      record({ change: { _tag: "move", from, to, file } })
    },
    unlink: async (path: string) => {
      await real.unlink(path)
      record({ change: { _tag: "unlink", path } })
    }
  }
})

const event = (id: string, key: string): Sink.OutboundEvent => {
  const eventId = EventId.make(id)
  const event = { event_id: eventId, type: "test" }
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

const inDirectory = Effect.acquireRelease(
  Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "power-loss-"))),
  (directory) => Effect.promise(() => Fs.rm(directory, { recursive: true, force: true }))
)

const batches: ReadonlyArray<ReadonlyArray<readonly [id: string, key: string]>> = [
  [
    ["a1", "a"],
    ["b1", "b"]
  ],
  [
    ["a2", "a"],
    ["a3", "a"],
    ["b2", "b"],
    ["a4", "a"],
    ["b3", "b"]
  ],
  [
    ["a5", "a"],
    ["a6", "a"]
  ]
]

const publish = (sink: Sink.Sink["Type"], batch: ReadonlyArray<readonly [string, string]>) =>
  sink.publish({ events: batch.map(([id, key]) => event(id, key)) as [Sink.OutboundEvent], deadline: Infinity })

const versionsOf = (outcomes: ReadonlyArray<Sink.Outcome>) =>
  outcomes.map((outcome) => {
    assert.strictEqual(outcome._tag, "Published")
    return outcome._tag === "Published" ? outcome.version : 0
  })

/** What happens up to a crash, and what was answered before it. */
const record = Effect.gen(function* () {
  const directory = yield* inDirectory
  disk.log.length = 0
  disk.recording = true
  /** Events with their versions, and the entries of the log that came before the answer. */
  const answered: Array<{ readonly id: string; readonly version: number; readonly after: number }> = []
  yield* Effect.gen(function* () {
    const sink = yield* FileSink.make({ directory })
    for (const batch of batches) {
      const versions = versionsOf(yield* publish(sink, batch))
      batch.forEach(([id], index) => answered.push({ id, version: versions[index]!, after: disk.log.length }))
    }
    disk.recording = false
  }).pipe(Effect.scoped, Effect.ensuring(Effect.sync(() => (disk.recording = false))))
  return { directory, log: disk.log.slice() as ReadonlyArray<Recorded>, answered }
})

/** The files that the disk holds after a crash, by name. Each change since the last sync is kept or lost. */
const crash = (directory: string, log: ReadonlyArray<Recorded>, keeps: () => boolean): Map<string, string> => {
  const contents = new Map<number, string>()
  let names = new Map<string, number>()
  let pending: Array<Change> = []
  const apply = (changes: ReadonlyArray<Change>) => {
    names = new Map(names)
    for (const change of changes) {
      if (change._tag === "link") names.set(change.path, change.file)
      else if (change._tag === "unlink") names.delete(change.path)
      else {
        names.delete(change.from)
        names.set(change.to, change.file)
      }
    }
  }
  for (const { change, directory: synced, file } of log) {
    if (change !== undefined) pending.push(change)
    if (file !== undefined) contents.set(...file)
    if (synced === directory) {
      apply(pending)
      pending = []
    }
  }
  apply(pending.filter(() => keeps()))
  // What was not synced may be empty.
  return new Map(Array.from(names, ([path, file]) => [Path.basename(path), contents.get(file) ?? ""]))
}

describe("A power loss", () => {
  it.scopedLive(
    "loses nothing that was answered and keeps the order of each key, whichever renames it keeps",
    () =>
      Effect.gen(function* () {
        const { answered, directory, log } = yield* record
        let recovered = 0
        for (let round = 0; round < 400; round++) {
          const at = yield* Random.nextIntBetween(0, log.length + 1)
          const share = yield* Random.next
          const choices: Array<boolean> = []
          for (let n = 0; n < 60; n++) choices.push((yield* Random.next) < share)
          const left = crash(directory, log.slice(0, at), () => choices.pop() ?? false)
          const place = yield* inDirectory
          yield* Effect.promise(async () => {
            for (const [name, text] of left) await Fs.writeFile(Path.join(place, name), text)
          })
          const trace = `round ${round}, crash after ${at} of ${log.length}: ${Array.from(left.keys()).join(" ")}`
          yield* Effect.gen(function* () {
            const before = Array.from(left.keys()).filter((name) => name.endsWith(".json") && !name.startsWith("."))
            const sink = yield* FileSink.make({ directory: place })
            const names = (yield* Effect.promise(() => Fs.readdir(place))).filter((name) => /^[^.].*\.json$/.test(name))
            if (names.length > before.length) recovered++
            // As the pump does: whatever has no answer comes again, in its order.
            const found = new Map<string, number>()
            for (const batch of batches) {
              const versions = versionsOf(yield* publish(sink, batch))
              batch.forEach(([id], index) => found.set(id, versions[index]!))
            }
            for (const { after, id, version } of answered) {
              if (after <= at) assert.strictEqual(found.get(id), version, `${id} lost, ${trace}`)
            }
            for (const key of ["a", "b"]) {
              const versions = batches.flat().flatMap(([id, other]) => (other === key ? [found.get(id)!] : []))
              assert.deepStrictEqual(
                versions,
                versions.slice().sort((one, other) => one - other),
                `${key} is out of order, ${trace}`
              )
            }
            assert.strictEqual(new Set(found.values()).size, found.size, trace)
          }).pipe(Effect.scoped)
          yield* Effect.promise(() => Fs.rm(place, { recursive: true }))
        }
        // Otherwise the crashes are too tame to show anything.
        assert.isAbove(recovered, 5)
      }).pipe(Effect.withRandom(Random.make("power loss"))),
    180_000
  )

  it.scopedLive("never leaves a version without the feed's identity", () =>
    Effect.gen(function* () {
      const { directory, log } = yield* record
      for (let at = 0; at <= log.length; at++) {
        for (const keeps of [() => true, () => false, () => at % 2 === 0]) {
          const left = crash(directory, log.slice(0, at), keeps)
          const hasEvents = Array.from(left.keys()).some((name) => /^[^.].*\.json$/.test(name))
          if (hasEvents) assert.match(left.get(".feed-id") ?? "", /^[0-9a-f-]{36}\n$/)
        }
      }
    })
  )
})
