/** Which versions the files of a directory have: their names do not say, so each file is read once. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import * as ControlVersion from "../../ControlVersion.js"
import { isEventFile } from "./fileName.js"
import * as Files from "./files.js"
import { SourceError } from "../../fleet/Source.js"

/** Files that are read at a time. */
const concurrency = 16

/** Listings take at most this share of the time, however large the directory is. */
const share = 0.2

export interface Entry {
  readonly name: string
  readonly version: number
  /** When the file got its name, in milliseconds since the epoch. */
  readonly since: number
}

export interface FeedIndex {
  /** Absolute. */
  readonly path: string
  /** Lists the directory, and reads the files that are new. */
  readonly refresh: Effect.Effect<void, SourceError>
  /** Whether something has changed in the directory since it was listed, by the time of its last change. */
  readonly hasChanged: Effect.Effect<boolean, SourceError>
  /** When the directory may be listed again, in milliseconds since the epoch. */
  readonly notBefore: () => number
  /** The entry after a version. */
  readonly after: (version: number) => Entry | undefined
  /** The highest version, 0 where there is none. */
  readonly newest: () => number
  /**
   * Up to which version nothing is missing that was placed in the order of the versions. A listing is no snapshot: it
   * may show a file and not one that appeared before it. What it shows last is complete in the next one.
   */
  readonly complete: () => number
  /** A file that appeared with a version that had been passed before, and has to be told of. */
  readonly late: () => Entry | undefined
  /** Says that versions up to this one are passed: one that appears now is late. */
  readonly pass: (version: number) => void
  /** Says that reading begins after a version: what was late after it is read now. */
  readonly begin: (after: number) => void
}

const failure = (reason: SourceError["reason"], message: string, cause?: unknown) =>
  new SourceError({ source: "file", reason, message, ...(cause === undefined ? {} : { cause }) })

export const unreadable = (path: string, error: Files.FileError): SourceError =>
  ["ENOENT", "ENOTDIR", "EACCES", "EPERM"].includes(error.code)
    ? failure("misconfigured", `Cannot read the feed in the directory ${path}: ${error.message}`, error)
    : failure("unavailable", `Cannot read the feed in the directory ${path}: ${error.message}`, error)

const malformed = (path: string, name: string, why: string) =>
  failure(
    "malformed",
    `The file ${Path.join(path, name)} ${why}: restore it from the outbox, or move it away if it is none of the feed's`
  )

const versionOf = (path: string, name: string, text: string): Effect.Effect<number, SourceError> => {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return malformed(path, name, "holds no JSON")
  }
  if (typeof value !== "object" || value === null) return malformed(path, name, "holds no JSON object")
  const version = "control_version" in value ? value.control_version : undefined
  return ControlVersion.is(version)
    ? Effect.succeed(version)
    : malformed(path, name, version === undefined ? "has no control_version" : "has a control_version that cannot be")
}

export const make = (path: string): Effect.Effect<FeedIndex> =>
  Effect.map(Effect.makeSemaphore(1), (one) => {
    const byName = new Map<string, Entry>()
    /** Sorted by version. */
    let entries: Array<Entry> = []
    let complete = 0
    let passed = 0
    let late: Entry | undefined
    let changedAt: string | undefined
    let notBefore = 0

    const changes = Effect.map(
      Files.attempt(() => Fs.stat(path, { bigint: true })),
      ({ ino, mtimeNs }) => `${ino} ${mtimeNs}`
    )

    const read = (name: string): Effect.Effect<Entry | undefined, SourceError | Files.FileError> =>
      Effect.gen(function* () {
        const file = Path.join(path, name)
        const text = yield* Files.ifPresent(Files.read(file))
        const found = yield* Files.ifPresent(Files.attempt(() => Fs.stat(file)))
        if (text === undefined || found === undefined) return undefined
        return { name, version: yield* versionOf(path, name, text), since: found.ctimeMs }
      })

    const insert = (entry: Entry): Effect.Effect<void, SourceError> => {
      const at = lowerBound(entries, entry.version)
      const other = entries[at]
      if (other?.version === entry.version) {
        return malformed(path, entry.name, `has the control_version ${entry.version}, and so has ${other.name}`)
      }
      byName.set(entry.name, entry)
      entries.splice(at, 0, entry)
      if (entry.version <= passed && (late === undefined || entry.version < late.version)) late = entry
      return Effect.void
    }

    const refresh = Effect.gen(function* () {
      const from = yield* Clock.currentTimeMillis
      const change = yield* changes
      const newest = entries[entries.length - 1]?.version ?? 0
      const names = new Set(yield* Files.names(path, isEventFile))
      // What is gone was pruned.
      if (entries.some(({ name }) => !names.has(name))) {
        entries = entries.filter(({ name }) => names.has(name))
        for (const name of byName.keys()) if (!names.has(name)) byName.delete(name)
      }
      const fresh = Array.from(names).filter((name) => !byName.has(name))
      const found = yield* Effect.forEach(fresh, read, { concurrency })
      const inOrder = found.filter((entry) => entry !== undefined).sort((a, b) => a.version - b.version)
      for (const entry of inOrder) yield* insert(entry)
      complete = newest
      changedAt = change
      const now = yield* Clock.currentTimeMillis
      notBefore = now + (now - from) * (1 / share - 1)
    }).pipe(
      Effect.catchTag("FileError", (error) => unreadable(path, error)),
      one.withPermits(1)
    )

    return {
      path,
      refresh,
      hasChanged: Effect.map(changes, (now) => now !== changedAt).pipe(
        Effect.catchTag("FileError", (error) => unreadable(path, error))
      ),
      notBefore: () => notBefore,
      after: (version) => entries[lowerBound(entries, version + 1)],
      newest: () => entries[entries.length - 1]?.version ?? 0,
      complete: () => complete,
      late: () => late,
      pass: (version) => {
        passed = Math.max(passed, version)
      },
      begin: (after) => {
        if (late !== undefined && after < late.version) late = undefined
        passed = after
      }
    }
  })

/** Where the first entry of at least a version is. */
const lowerBound = (entries: ReadonlyArray<Entry>, version: number): number => {
  let [low, high] = [0, entries.length]
  // Almost always at the end.
  if (high > 0 && entries[high - 1]!.version < version) return high
  while (low < high) {
    const middle = (low + high) >> 1
    if (entries[middle]!.version < version) low = middle + 1
    else high = middle
  }
  return low
}
