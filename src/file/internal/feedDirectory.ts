/** A directory that this sink alone publishes into, and the versions it gives out there. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as DirectoryLock from "./directoryLock.js"
import * as Files from "./files.js"
import * as VersionFile from "./versionFile.js"

/** Versions are reserved so many at a time, and a crash leaves a gap of at most so many. */
const versionBlock = 1000

export interface FeedDirectory {
  /** Absolute. */
  readonly path: string
  /**
   * Runs an effect while no other one runs, so that events appear in the order of their versions, and only while the
   * directory is there and ours. One that was replaced is taken again.
   */
  readonly exclusively: <A, E, R>(
    effect: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | Files.FileError | DirectoryLock.DirectoryLocked, R>
  /** The first of as many consecutive versions that nothing gets but the caller, whatever happens. */
  readonly reserve: (count: number) => Effect.Effect<number, Files.FileError>
}

/** Opens a directory, which is made when missing, until the scope closes. */
export const open = (
  path: string
): Effect.Effect<FeedDirectory, Files.FileError | DirectoryLock.DirectoryLocked, Scope.Scope> =>
  Effect.gen(function* () {
    const gate = yield* Effect.makeSemaphore(1)
    let closed = false
    let lock: string | undefined
    let next = 1
    /** The version file says that versions from here on are free. */
    let reserved = 1

    yield* Files.makeDirectory(path)
    const device = yield* Files.device(path)

    const unlock = Effect.suspend(() => {
      const file = lock
      lock = undefined
      return file === undefined ? Effect.void : Files.remove(file)
    }).pipe(Effect.catchAll((error) => Effect.logWarning(`The lock on ${path} was not given back`, error)))

    const take = Effect.gen(function* () {
      yield* Effect.uninterruptible(
        Effect.map(DirectoryLock.acquire(path), (file) => {
          lock = file
        })
      )
      yield* Files.removeTemporaries(path)
      next = Math.max(next, yield* VersionFile.read(path))
      reserved = next
    }).pipe(Effect.onError(() => unlock))

    const isHeld = Effect.suspend(() => (lock === undefined ? Effect.succeed(false) : Files.exists(lock)))

    const ensureHeld = Effect.gen(function* () {
      if (closed) return yield* unusable("the sink is closed")
      if (yield* isHeld) return
      if ((yield* Files.device(path)) !== device) {
        return yield* unusable("it is on another file system than at the start, is it mounted?")
      }
      yield* take
      yield* Effect.logWarning(`The directory ${path} was replaced; the feed goes on in it`)
    })

    const close = Effect.gen(function* () {
      closed = true
      // Not in a directory that may be somebody else's by now.
      if (next !== reserved && (yield* isHeld)) yield* VersionFile.write(path, next)
    }).pipe(
      Effect.catchAll((error) => Effect.logWarning(`The next start in ${path} leaves a gap in the versions`, error)),
      Effect.zipRight(unlock),
      gate.withPermits(1)
    )

    yield* Effect.addFinalizer(() => close)
    yield* take

    return {
      path,
      exclusively: (effect) => gate.withPermits(1)(Effect.zipRight(ensureHeld, effect)),
      reserve: (count) =>
        Effect.gen(function* () {
          if (next + count > reserved) {
            const until = next + count + versionBlock
            yield* VersionFile.write(path, until)
            reserved = until
          }
          next += count
          return next - count
        })
    }
  })

const unusable = (message: string) => new Files.FileError({ code: "", message, cause: undefined })
