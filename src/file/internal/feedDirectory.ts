/** A directory into which only this sink publishes, and the versions that it assigns. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { modesOf, type Access } from "./access.js"
import * as DirectoryLock from "./directoryLock.js"
import * as FeedIdentity from "./feedIdentity.js"
import * as Files from "./files.js"
import * as Placement from "./placement.js"
import * as VersionFile from "./versionFile.js"

/** How many versions are reserved at a time. A crash leaves a hole of at most this size. */
const versionBlock = 1000

export interface FeedDirectory {
  /** Absolute. */
  readonly path: string
  /**
   * Runs an effect while no other one runs, so that events appear in the order of their versions, and only while the
   * directory exists and is locked by us. A directory that was replaced is locked again.
   */
  readonly exclusively: <A, E, R>(
    effect: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | Files.FileError | DirectoryLock.DirectoryLocked, R>
  /** Reserves consecutive versions for the caller, whatever happens, and returns the first. */
  readonly reserve: (count: number) => Effect.Effect<number, Files.FileError>
  /**
   * Run it before files appear: those of an earlier batch are then on the disk. With steps, a power loss from now on
   * keeps their order.
   */
  readonly begin: (steps: ReadonlyArray<Placement.Step>) => Effect.Effect<void, Files.FileError>
  /** Syncs the files that have appeared to the disk. */
  readonly settle: Effect.Effect<void, Files.FileError>
  /** The mode of the files that appear. */
  readonly mode: number
}

/** Opens a directory until the scope closes, and creates it if it is missing. */
export const open = (
  path: string,
  access: Access | undefined
): Effect.Effect<FeedDirectory, Files.FileError | DirectoryLock.DirectoryLocked, Scope.Scope> =>
  Effect.gen(function* () {
    const gate = yield* Effect.makeSemaphore(1)
    const modes = modesOf(access)
    let closed = false
    let lock: string | undefined
    let next = 1
    /** The version file says that versions from here on are free. */
    let reserved = 1

    /** Files may have appeared that are not on the disk. */
    let unsettled = false

    yield* Files.makeDirectory(path, modes.directory)
    const device = yield* Files.device(path)

    const unlock = Effect.suspend(() => {
      const file = lock
      lock = undefined
      return file === undefined ? Effect.void : Files.remove(file)
    }).pipe(Effect.catchAll((error) => Effect.logWarning(`The lock on ${path} was not released`, error)))

    const take = Effect.gen(function* () {
      yield* Effect.uninterruptible(
        Effect.map(DirectoryLock.acquire(path), (file) => {
          lock = file
        })
      )
      yield* recover(path)
      yield* Files.removeTemporaries(path)
      // On the disk before the first version is.
      const isNew = yield* FeedIdentity.ensure(path, modes.file)
      unsettled = false
      next = Math.max(next, yield* VersionFile.read(path))
      reserved = next
      if (isNew && next > 1) {
        yield* Effect.logInfo(`The feed in ${path} had no identity and has one now`)
      }
    }).pipe(Effect.onError(() => unlock))

    const settle = Effect.gen(function* () {
      yield* Files.syncDirectory(path)
      yield* Placement.forget(path)
      unsettled = false
    })

    const isHeld = Effect.suspend(() => (lock === undefined ? Effect.succeed(false) : Files.exists(lock)))

    const ensureHeld = Effect.gen(function* () {
      if (closed) return yield* unusable("the sink is closed")
      if (yield* isHeld) return
      if ((yield* Files.device(path)) !== device) {
        return yield* unusable("it is on another file system than at the start, is it mounted?")
      }
      yield* take
      yield* Effect.logWarning(`The directory ${path} was replaced; the feed continues in it`)
    })

    const close = Effect.gen(function* () {
      closed = true
      // Not in a directory that may belong to another process by now.
      if (!(yield* isHeld)) return
      if (unsettled) yield* settle
      if (next !== reserved) yield* VersionFile.write(path, next)
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
        }),
      begin: (steps) =>
        Effect.gen(function* () {
          if (unsettled) yield* settle
          if (steps.length > 0) yield* Placement.announce(path, steps)
          unsettled = true
        }),
      settle,
      mode: modes.file
    }
  })

/** Syncs what an earlier holder has left to the disk, and finishes what it had begun. */
const recover = (path: string): Effect.Effect<void, Files.FileError> =>
  Effect.gen(function* () {
    const placed = yield* Placement.recover(path)
    // From a holder that was killed.
    yield* Files.syncDirectory(path)
    if (placed > 0)
      yield* Effect.logWarning(`A crash interrupted a batch in ${path}: finished it with ${placed} more events`)
  })

const unusable = (message: string) => new Files.FileError({ code: "", message, cause: undefined })
