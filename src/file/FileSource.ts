/**
 * Reads the feed that `FileSink` keeps in a directory.
 *
 * Reads files in the order of their control versions. At a hole, a file younger than `settle` waits for those before
 * it, since a copy of a feed may bring its files in any order. After that the hole is passed: pumps that crash leave
 * holes, and files may be removed. A file that comes after its version was passed is a `gap`: start the node again from
 * before it.
 *
 * The feed's identity is the id in `.feed-id`, which the sink creates with the feed. A feed without one has the
 * identity `""` and cannot be distinguished from another one that takes its place.
 *
 * @since 0.1.0
 */
import * as Chunk from "effect/Chunk"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Fs from "node:fs"
import * as Path from "node:path"
import type { ControlVersion } from "../ControlVersion.js"
import * as Files from "./internal/files.js"
import { maxEventBytes } from "./internal/fileName.js"
import * as FeedIndex from "./internal/feedIndex.js"
import { beyond, Source, SourceError, type FeedEvent, type Position } from "../fleet/Source.js"
import { layerConfig as makeLayerConfig, type LayerConfig } from "../internal/layerConfig.js"

/**
 * Where the feed is, and how long to wait at a hole.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Relative to the working directory. */
  readonly directory: string
  /** How long a file waits for missing versions before it. Default 2 seconds. */
  readonly settle?: Duration.DurationInput | undefined
}

/** How often the directory is checked without a notification, in milliseconds. */
const pollPeriod = 1_000

/** Events that are read at a time, and the bytes after which no other one is added. */
const chunkSize = 256
const chunkBytes = 16 * 1024 * 1024

const concurrency = 16

const gap = (message: string) => new SourceError({ source: "file", reason: "gap", message })

const replaced = (path: string, before: string, now: string) =>
  new SourceError({
    source: "file",
    reason: "replaced",
    message:
      now === ""
        ? `The feed in ${path} was ${before} and has lost its identity: restore its .feed-id, or start from a snapshot`
        : `The feed in ${path} is ${now} and was ${before}: its versions begin again. Start from a snapshot, or from 0 if the feed holds everything`
  })

/** Opens a latch whenever something changes in the directory. If the directory cannot be watched, it is polled. */
const watch = (path: string, changed: Effect.Latch): Effect.Effect<void, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      try {
        const watcher = Fs.watch(path, () => changed.unsafeOpen())
        return watcher.on("error", () => {
          watcher.close()
        })
      } catch {
        return undefined
      }
    }),
    (watcher) => Effect.sync(() => watcher?.close())
  ).pipe(Effect.asVoid)

/**
 * Makes a source on a directory. Fails only when it is read, with a `SourceError`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options): Effect.Effect<Source["Type"]> =>
  Effect.gen(function* () {
    const path = Path.resolve(options.directory)
    const settle = Duration.toMillis(options.settle ?? "2 seconds")
    const index = yield* FeedIndex.make(path)

    /** Returns `undefined` if the file is not the one that was listed. */
    const read = (entry: FeedIndex.Entry): Effect.Effect<FeedEvent | undefined, SourceError> =>
      Files.ifPresent(Files.readContents(Path.join(path, entry.name), maxEventBytes)).pipe(
        Effect.catchTag("FileError", (error) => FeedIndex.unreadableFile(path, entry.name, error)),
        Effect.map((found) =>
          found === undefined || FeedIndex.stampOf(found.stats) !== entry.stamp
            ? undefined
            : { version: entry.version as ControlVersion, text: found.bytes.toString("utf8"), traceparent: undefined }
        )
      )

    /**
     * Tells whether a hole before an entry may be passed: by the clock of the file system alone if enough time has
     * passed on it, else by that of this machine alone. The two may differ by hours.
     */
    const hasWaited = ({ placed, seen }: FeedIndex.Entry, now: number) =>
      index.latestChange() - placed >= settle || now - seen >= settle

    /** Returns the entries after a position that may be read now, and when a waiting one may be. */
    const readable = (position: Position, now: number) => {
      const entries: Array<FeedIndex.Entry> = []
      let last = position
      let bytes = 0
      for (;;) {
        const next = index.after(last)
        if (next === undefined) return { entries, waitsUntil: undefined }
        if (next.version > last + 1) {
          if (next.version > index.complete()) return { entries, waitsUntil: undefined }
          if (!hasWaited(next, now)) return { entries, waitsUntil: next.seen + settle }
        }
        bytes += next.size
        if (entries.length === chunkSize || (entries.length > 0 && bytes > chunkBytes)) {
          return { entries, waitsUntil: undefined }
        }
        entries.push(next)
        last = next.version
      }
    }

    const checkLate: Effect.Effect<void, SourceError> = Effect.suspend(() => {
      const late = index.late()
      return late === undefined
        ? Effect.void
        : gap(
            `The file ${Path.join(path, late.name)} of version ${late.version} appeared after this node had passed that version: restart the node from before ${late.version}`
          )
    })

    /** Waits until there may be something new, then lists the directory if there is. */
    const change = (changed: Effect.Latch, until: number | undefined) =>
      Effect.gen(function* () {
        const now = yield* FeedIndex.now
        const told = yield* changed.await.pipe(
          Effect.as(true),
          Effect.timeoutTo({
            duration: Math.max(Math.min(pollPeriod, (until ?? Infinity) - now), 1),
            onSuccess: () => true,
            onTimeout: () => false
          })
        )
        if (!told && !(yield* index.hasChanged)) return
        yield* Effect.sleep(Math.max(index.notBefore() - (yield* FeedIndex.now), 0))
        yield* changed.close
        yield* index.refresh
      })

    /** Reads entries up to one that has changed since it was listed. */
    const readAll = (entries: ReadonlyArray<FeedIndex.Entry>) =>
      Effect.map(Effect.forEach(entries, read, { concurrency }), (found) => {
        const end = found.indexOf(undefined)
        return {
          events: (end < 0 ? found : found.slice(0, end)).filter((event) => event !== undefined),
          changed: end < 0 ? undefined : entries[end]
        }
      })

    /** Fails if the next entry is gone. One that was published again comes again. */
    const checkGone = (entry: FeedIndex.Entry) =>
      index.has(entry.name)
        ? Effect.void
        : gap(
            `The file ${Path.join(path, entry.name)} of version ${entry.version} was removed before this node had read it`
          )

    interface Reader {
      readonly changed: Effect.Latch
      /** The feed that is read, `""` until it has an identity. */
      feed: string
    }

    const checkFeed = (reader: Reader): Effect.Effect<void, SourceError> =>
      Effect.suspend(() => {
        const identity = index.identity()
        if (reader.feed === "") reader.feed = identity
        return reader.feed === identity ? Effect.void : replaced(path, reader.feed, identity)
      })

    /** The next events after a position, at least one. */
    const next = (reader: Reader, position: Position): Effect.Effect<ReadonlyArray<FeedEvent>, SourceError> =>
      Effect.gen(function* () {
        for (;;) {
          yield* checkFeed(reader)
          yield* checkLate
          const { entries, waitsUntil } = readable(position, yield* FeedIndex.now)
          if (entries.length > 0) {
            const { changed, events } = yield* readAll(entries)
            if (events.length > 0) {
              index.pass(events[events.length - 1]!.version)
              return events
            }
            if (changed === undefined) continue
            index.forget(changed)
            yield* index.refresh
            yield* checkFeed(reader)
            yield* checkGone(changed)
          } else if (index.complete() < index.newest()) {
            // What the last listing showed first is complete in the next listing.
            yield* index.refresh
          } else {
            yield* change(reader.changed, waitsUntil)
          }
        }
      })

    const events = (after: Position, feed: string) =>
      Effect.gen(function* () {
        const reader: Reader = { changed: yield* Effect.makeLatch(false), feed }
        yield* watch(path, reader.changed)
        yield* index.refresh
        yield* checkFeed(reader)
        index.begin(after)
        if (index.newest() < after) return yield* beyond("file", after, index.newest())
        return Stream.unfoldChunkEffect(after, (position) =>
          Effect.map(next(reader, position), (events) => {
            const last = events[events.length - 1]!.version
            return [Chunk.unsafeFromArray(events), last] as const
          }).pipe(Effect.asSome)
        )
      })

    return Source.of({
      name: "file",
      inert: false,
      look: Effect.map(index.refresh, () => {
        const newest = index.newest()
        return { identity: index.identity(), newest, oldest: index.after(0)?.version ?? newest + 1 }
      }),
      events: (after, feed = "") => Stream.unwrapScoped(events(after, feed)),
      acknowledge: () => Effect.void
    })
  })

/**
 * Reads the feed that `FileSink` keeps in a directory.
 *
 * @example
 * import { FileSource } from "controlpublish/file"
 *
 * export const SourceLive = FileSource.layer({ directory: "feed", settle: "10 seconds" })
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: Options): Layer.Layer<Source> => Layer.effect(Source, make(options))

/**
 * Provides the same as {@link layer}, its options read from `Config`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig: LayerConfig<Options, Source, never, never> = makeLayerConfig(layer)
