/** The versions of the files in a directory. The names do not have them, so each file is read once. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { Stats } from "node:fs"
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import * as ControlVersion from "../../ControlVersion.js"
import * as FeedIdentity from "./feedIdentity.js"
import { isEventFile, maxEventBytes } from "./fileName.js"
import * as Files from "./files.js"
import { SourceError } from "../../fleet/Source.js"

/** Files that are read at a time. */
const concurrency = 16

/** Listings take at most this share of the time, however large the directory is. */
const share = 0.2

export interface Entry {
  readonly name: string
  readonly version: number
  /** In bytes. */
  readonly size: number
  /** Identifies the file behind the name: another file has another stamp. */
  readonly stamp: string
  /** When the file got its name, by the clock of the file system, in milliseconds. */
  readonly placed: number
  /** When it was seen first, in milliseconds of `now`. */
  readonly seen: number
}

/** The stamp of a file. */
export const stampOf = ({ ino, mtimeMs }: Stats): string => `${ino} ${mtimeMs}`

/** Milliseconds of a monotonic clock. */
export const now: Effect.Effect<number> = Effect.map(Clock.currentTimeNanos, (nanos) => Number(nanos / 1_000n) / 1_000)

export interface FeedIndex {
  /** Absolute. */
  readonly path: string
  /** Lists the directory, and reads the files that are new. */
  readonly refresh: Effect.Effect<void, SourceError>
  /** Whether something has changed in the directory since it was listed, by the time of its last change. */
  readonly hasChanged: Effect.Effect<boolean, SourceError>
  /** When the directory may be listed again, in milliseconds of `now`. */
  readonly notBefore: () => number
  /** The identity of the feed, `""` if it has none. */
  readonly identity: () => string
  /** The latest change seen, by the clock of the file system, in milliseconds. */
  readonly latestChange: () => number
  /** Whether the last listing had a file of this name. */
  readonly has: (name: string) => boolean
  /** Reads a file again with the next listing. */
  readonly forget: (entry: Entry) => void
  /** The entry after a version. */
  readonly after: (version: number) => Entry | undefined
  /** The highest version, 0 if there is none. */
  readonly newest: () => number
  /**
   * The version up to which no file is missing that appeared in order. A listing is no snapshot: it may show a file and
   * miss one that appeared before it, which the next listing shows.
   */
  readonly complete: () => number
  /** A file that appeared after its version was passed, and must be reported. */
  readonly late: () => Entry | undefined
  /** Marks versions up to this one as passed: one that appears now is late. */
  readonly pass: (version: number) => void
  /** Starts reading after a version: late files after it are read now. */
  readonly begin: (after: number) => void
}

const failure = (reason: SourceError["reason"], message: string, cause?: unknown) =>
  new SourceError({ source: "file", reason, message, ...(cause === undefined ? {} : { cause }) })

export const unreadable = (path: string, error: Files.FileError): SourceError =>
  failure(
    Files.isNoFile(error) ? "malformed" : (reasons[error.code] ?? "unavailable"),
    `Cannot read the feed in the directory ${path}: ${error.message}`,
    error
  )

const reasons: Readonly<Record<string, SourceError["reason"]>> = {
  ENOENT: "misconfigured",
  ENOTDIR: "misconfigured",
  EACCES: "misconfigured",
  EPERM: "misconfigured",
  [FeedIdentity.malformed]: "malformed"
}

/** The error of an event's file that cannot be read. */
export const unreadableFile = (path: string, name: string, error: Files.FileError): SourceError => {
  if (Files.isNoFile(error)) return malformed(path, name, `cannot be an event: ${error.message}`)
  return error.code === "EACCES" || error.code === "EPERM"
    ? failure(
        "misconfigured",
        `Cannot read the file ${Path.join(path, name)}: ${error.message}; whoever publishes sets who may read (FEED_SINK_FILE_ACCESS)`,
        error
      )
    : unreadable(path, error)
}

const malformed = (path: string, name: string, why: string) =>
  failure(
    "malformed",
    `The file ${Path.join(path, name)} ${why}: restore it from the outbox, or move it away if it does not belong to the feed`
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
    let identity = ""
    let complete = 0
    let passed = 0
    let late: Entry | undefined
    let changedAt: string | undefined
    let latestChange = 0
    let notBefore = 0

    const changes = Effect.map(
      Files.attempt(() => Fs.stat(path, { bigint: true })),
      ({ ctimeNs, ino, mtimeNs }) => ({ stamp: `${ino} ${mtimeNs}`, at: Number(ctimeNs / 1_000_000n) })
    )

    const read = (name: string): Effect.Effect<Entry | undefined, SourceError> =>
      Effect.gen(function* () {
        const seen = yield* now
        const found = yield* Files.ifPresent(Files.readContents(Path.join(path, name), maxEventBytes)).pipe(
          Effect.catchTag("FileError", (error) => unreadableFile(path, name, error))
        )
        if (found === undefined) return undefined
        const { bytes, stats } = found
        const version = yield* versionOf(path, name, bytes.toString("utf8"))
        return { name, version, size: stats.size, stamp: stampOf(stats), placed: stats.ctimeMs, seen }
      })

    const insert = (entry: Entry): Effect.Effect<void, SourceError> => {
      const at = lowerBound(entries, entry.version)
      const other = entries[at]
      if (other?.version === entry.version) {
        return malformed(path, entry.name, `has the control_version ${entry.version}, and so has ${other.name}`)
      }
      byName.set(entry.name, entry)
      entries.splice(at, 0, entry)
      latestChange = Math.max(latestChange, entry.placed)
      if (entry.version <= passed && (late === undefined || entry.version < late.version)) late = entry
      return Effect.void
    }

    const remove = (isGone: (entry: Entry) => boolean) => {
      for (const entry of entries) if (isGone(entry)) byName.delete(entry.name)
      entries = entries.filter((entry) => !isGone(entry))
    }

    /** Another feed may have files of the same names. */
    const replace = (by: string) => {
      remove(() => true)
      identity = by
      complete = passed = latestChange = 0
      late = undefined
    }

    /** Lists the directory. Returns whether it held one feed from beginning to end. */
    const list = Effect.gen(function* () {
      const before = yield* FeedIdentity.read(path)
      if (before !== identity) replace(before)
      const from = yield* now
      const change = yield* changes
      const newest = entries[entries.length - 1]?.version ?? 0
      const names = new Set(yield* Files.names(path, isEventFile))
      // What is gone was pruned.
      if (entries.some(({ name }) => !names.has(name))) remove(({ name }) => !names.has(name))
      const fresh = Array.from(names).filter((name) => !byName.has(name))
      const found = yield* Effect.forEach(fresh, read, { concurrency })
      if ((yield* FeedIdentity.read(path)) !== before) return false
      const inOrder = found.filter((entry) => entry !== undefined).sort((a, b) => a.version - b.version)
      for (const entry of inOrder) yield* insert(entry)
      complete = newest
      changedAt = change.stamp
      latestChange = Math.max(latestChange, change.at)
      const until = yield* now
      notBefore = until + (until - from) * (1 / share - 1)
      return true
    })

    const refresh = list.pipe(
      Effect.repeat({ while: (isOne) => !isOne, times: 9 }),
      Effect.catchTag("FileError", (error) => unreadable(path, error)),
      Effect.flatMap((isOne) =>
        isOne
          ? Effect.void
          : failure("unavailable", `Cannot read the feed in the directory ${path}: it is replaced all the time`)
      ),
      one.withPermits(1)
    )

    return {
      path,
      refresh,
      hasChanged: Effect.map(changes, ({ stamp }) => stamp !== changedAt).pipe(
        Effect.catchTag("FileError", (error) => unreadable(path, error))
      ),
      notBefore: () => notBefore,
      identity: () => identity,
      latestChange: () => latestChange,
      has: (name) => byName.has(name),
      forget: ({ name, stamp }) => remove((entry) => entry.name === name && entry.stamp === stamp),
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

/** The index of the first entry of at least a version. */
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
