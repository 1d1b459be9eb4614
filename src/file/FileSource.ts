/**
 * Reads the feed that `FileSink` keeps in a directory.
 *
 * Files are read in the order of their control versions. Where versions are missing, a file that has been there for
 * less than `settle` waits for those before it, as a copy of a feed may bring its files in any order. After that the
 * hole is passed: pumps that crash leave holes, and files that nobody wants any more may be removed. A file whose
 * version was passed is a `gap`, and the node has to be started again from before it.
 *
 * @since 1.0.0
 */
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Fs from "node:fs"
import * as Path from "node:path"
import type { ControlVersion } from "../ControlVersion.js"
import * as Files from "./internal/files.js"
import * as FeedIndex from "./internal/feedIndex.js"
import { beyond, Source, SourceError, type FeedEvent, type Position } from "../fleet/Source.js"

/**
 * @since 1.0.0
 * @category models
 */
export interface Options {
  /** Relative to the working directory. */
  readonly directory: string
  /** How long a file waits for those before it. Default 2 seconds. */
  readonly settle?: Duration.DurationInput | undefined
}

/** How often the directory is looked at where nothing told of a change, in milliseconds. */
const pollPeriod = 1_000

/** Events that are read at a time. */
const chunkSize = 256

const concurrency = 16

const gap = (message: string) => new SourceError({ source: "file", reason: "gap", message })

/** Opens a latch whenever something changes in the directory. Where that cannot be watched, it is polled. */
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
 * @since 1.0.0
 * @category constructors
 */
export const make = (options: Options): Effect.Effect<Source["Type"]> =>
  Effect.gen(function* () {
    const path = Path.resolve(options.directory)
    const settle = Duration.toMillis(options.settle ?? "2 seconds")
    const index = yield* FeedIndex.make(path)

    const read = ({ name, version }: FeedIndex.Entry): Effect.Effect<FeedEvent, SourceError> =>
      Files.ifPresent(Files.read(Path.join(path, name))).pipe(
        Effect.catchTag("FileError", (error) => FeedIndex.unreadable(path, error)),
        Effect.flatMap((text) =>
          text === undefined
            ? gap(`The file ${Path.join(path, name)} of version ${version} was removed before this node had read it`)
            : Effect.succeed({ version: version as ControlVersion, text, traceparent: undefined })
        )
      )

    /** The entries after a position that may be read now, and when the next one may be where it waits. */
    const readable = (position: Position, now: number) => {
      const entries: Array<FeedIndex.Entry> = []
      let last = position
      for (;;) {
        const next = index.after(last)
        if (next === undefined) return { entries, waitsUntil: undefined }
        if (next.version > last + 1) {
          if (next.version > index.complete()) return { entries, waitsUntil: undefined }
          if (now < next.since + settle) return { entries, waitsUntil: next.since + settle }
        }
        if (entries.length === chunkSize) return { entries, waitsUntil: undefined }
        entries.push(next)
        last = next.version
      }
    }

    const checkLate: Effect.Effect<void, SourceError> = Effect.suspend(() => {
      const late = index.late()
      return late === undefined
        ? Effect.void
        : gap(
            `The file ${Path.join(path, late.name)} of version ${late.version} appeared after this node had passed that version: start it again from before ${late.version}`
          )
    })

    /** Waits until there may be something new, and lists the directory where there is. */
    const change = (changed: Effect.Latch, until: number | undefined) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const told = yield* changed.await.pipe(
          Effect.as(true),
          Effect.timeoutTo({
            duration: Math.max(Math.min(pollPeriod, (until ?? Infinity) - now), 1),
            onSuccess: () => true,
            onTimeout: () => false
          })
        )
        if (!told && !(yield* index.hasChanged)) return
        yield* Effect.sleep(Math.max(index.notBefore() - (yield* Clock.currentTimeMillis), 0))
        yield* changed.close
        yield* index.refresh
      })

    /** The next events after a position, at least one. */
    const next = (changed: Effect.Latch, position: Position): Effect.Effect<ReadonlyArray<FeedEvent>, SourceError> =>
      Effect.gen(function* () {
        for (;;) {
          yield* checkLate
          const { entries, waitsUntil } = readable(position, yield* Clock.currentTimeMillis)
          if (entries.length > 0) {
            const events = yield* Effect.forEach(entries, read, { concurrency })
            index.pass(events[events.length - 1]!.version)
            return events
          }
          // What the last listing showed first is complete in the next one.
          if (index.complete() < index.newest()) yield* index.refresh
          else yield* change(changed, waitsUntil)
        }
      })

    const events = (after: Position) =>
      Effect.gen(function* () {
        const changed = yield* Effect.makeLatch(false)
        yield* watch(path, changed)
        yield* index.refresh
        index.begin(after)
        if (index.newest() < after) return yield* beyond("file", after, index.newest())
        return Stream.unfoldChunkEffect(after, (position) =>
          Effect.map(next(changed, position), (events) => {
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
        return { identity: "", newest, oldest: index.after(0)?.version ?? newest + 1 }
      }),
      events: (after) => Stream.unwrapScoped(events(after)),
      acknowledge: () => Effect.void
    })
  })

/**
 * @since 1.0.0
 * @category layers
 */
export const layer = (options: Options): Layer.Layer<Source> => Layer.effect(Source, make(options))
