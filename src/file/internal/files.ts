/** The file system operations that feeds and artifacts need, as Effects. */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import { randomUUID } from "node:crypto"
import type { Stats } from "node:fs"
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import * as RegularFile from "../../node/regularFile.js"

/** An operation of the operating system failed. The message is its own, without the path. */
export class FileError extends Data.TaggedError("FileError")<{
  /** Such as `ENOSPC`. */
  readonly code: string
  readonly message: string
  readonly cause: unknown
}> {}

const toFileError = (cause: unknown): FileError => {
  const code = cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : ""
  const message = cause instanceof Error ? cause.message.split(", ", 1)[0]! : String(cause)
  return new FileError({ code, message, cause })
}

/**
 * Waits for the operation even when interrupted: nothing can cancel it, and going on without it would be a race.
 */
export const attempt = <A>(operation: () => Promise<A>): Effect.Effect<A, FileError> =>
  Effect.uninterruptible(Effect.tryPromise({ try: operation, catch: toFileError }))

/** Succeeds with `undefined` if an operation fails because there is no such file. */
export const ifPresent = <A>(self: Effect.Effect<A, FileError>): Effect.Effect<A | undefined, FileError> =>
  Effect.catchIf(
    self,
    (error) => error.code === "ENOENT",
    () => Effect.succeed(undefined)
  )

/** What temporary files start with. */
const temporary = ".tmp-"

/** Tells whether a name is that of a temporary file. */
export const isTemporary = (name: string): boolean => name.startsWith(temporary)

/** A new temporary name in the directory, where a rename is atomic. Readers ignore it and nobody can guess it. */
export const temporaryPath = (directory: string, prefix = ""): string =>
  Path.join(directory, `${temporary}${prefix}${randomUUID()}`)

/**
 * Writes a new file and syncs its contents, but not its name, to the disk. Fails if something, even a link, has the
 * name.
 */
export const create = (path: string, contents: string | Uint8Array, mode: number): Effect.Effect<void, FileError> =>
  attempt(async () => {
    const file = await RegularFile.create(path, mode)
    try {
      await file.writeFile(contents)
      await file.sync()
    } finally {
      await file.close()
    }
  })

/** Syncs the names in the directory to the disk. */
export const syncDirectory = (directory: string): Effect.Effect<void, FileError> =>
  attempt(async () => {
    const handle = await Fs.open(directory, "r")
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  })

/** A file as it was read. */
export interface Contents {
  readonly bytes: Buffer
  readonly stats: Stats
}

/** Files beyond this size in bytes are read one at a time, however many are asked for. */
const large = 1024 * 1024

const oneLarge = Effect.unsafeMakeSemaphore(1)

/** Reads a regular file of at most `maxBytes`. Anything else, even a link, fails at once. */
export const readContents = (path: string, maxBytes: number): Effect.Effect<Contents, FileError> =>
  Effect.acquireUseRelease(
    attempt(() => RegularFile.open(path, { maxBytes, followLink: false })),
    (file) => {
      const { stats } = file
      const bytes = attempt(() => RegularFile.contents(file))
      return Effect.map(stats.size > large ? oneLarge.withPermits(1)(bytes) : bytes, (bytes) => ({ bytes, stats }))
    },
    ({ handle }) => Effect.ignoreLogged(attempt(() => handle.close()))
  )

/** Reads a regular file as text. */
export const read = (path: string, maxBytes: number): Effect.Effect<string, FileError> =>
  Effect.map(readContents(path, maxBytes), ({ bytes }) => bytes.toString("utf8"))

/** Reads a file of the sink's own. An error names its path. */
export const readOwn = (path: string, maxBytes: number): Effect.Effect<string, FileError> =>
  Effect.mapError(read(path, maxBytes), (error) =>
    isNoFile(error)
      ? new FileError({ code: error.code, message: `${path}: ${error.message}: move it away`, cause: error.cause })
      : error
  )

/** Tells whether the error says that something other than a file, or too large a file, has the name. */
export const isNoFile = ({ code }: FileError): boolean => ["EISDIR", "ELOOP", "ENOTREG", "EFBIG"].includes(code)

export const exists = (path: string): Effect.Effect<boolean, FileError> =>
  Effect.map(ifPresent(attempt(() => Fs.stat(path))), (found) => found !== undefined)

/** Which file system the path is on. */
export const device = (path: string): Effect.Effect<number, FileError> =>
  Effect.map(
    attempt(() => Fs.stat(path)),
    ({ dev }) => dev
  )

export const rename = (from: string, to: string): Effect.Effect<void, FileError> => attempt(() => Fs.rename(from, to))

export const remove = (path: string): Effect.Effect<void, FileError> =>
  Effect.asVoid(ifPresent(attempt(() => Fs.unlink(path))))

/** Replaces a file atomically: a crash leaves the old text or the new. */
export const replace = (
  directory: string,
  name: string,
  text: string,
  mode: number
): Effect.Effect<void, FileError> => {
  const path = temporaryPath(directory)
  return create(path, text, mode).pipe(
    Effect.zipRight(rename(path, Path.join(directory, name))),
    Effect.onError(() => Effect.ignoreLogged(remove(path))),
    Effect.zipRight(syncDirectory(directory))
  )
}

/**
 * Makes the directory with its parents and syncs all of them to the disk. Node's `recursive` never ends if a parent
 * exists and takes no directory, as under `/proc`. New directories get the mode, whatever the umask of the process is.
 */
export const makeDirectory = (directory: string, mode: number): Effect.Effect<void, FileError> =>
  Effect.flatMap(makeMissing(directory, mode), (made) =>
    Effect.forEach(made, (path) => syncDirectory(Path.dirname(path)), { discard: true })
  )

const makeOne = async (directory: string, mode: number): Promise<void> => {
  await Fs.mkdir(directory, mode)
  if ((mode & 0o077) === 0) return
  const found = await Fs.stat(directory)
  // What the directory has inherited, such as its group, stays.
  if ((found.mode & mode) !== mode) await Fs.chmod(directory, (found.mode & 0o7777) | mode)
}

/** Makes the missing directories and returns them, the innermost first. */
const makeMissing = (directory: string, mode: number): Effect.Effect<ReadonlyArray<string>, FileError> => {
  const parent = Path.dirname(directory)
  const make = Effect.as(
    attempt(() => makeOne(directory, mode)),
    [directory]
  )
  return make.pipe(
    Effect.catchIf(
      ({ code }) => code === "ENOENT" && parent !== directory,
      () => Effect.zipWith(makeMissing(parent, mode), make, (outer, inner) => [...inner, ...outer])
    ),
    Effect.catchIf(
      ({ code }) => code === "EEXIST",
      (error) =>
        Effect.flatMap(
          attempt(() => Fs.stat(directory)),
          (found) => (found.isDirectory() ? Effect.succeed([]) : error)
        )
    )
  )
}

/** The names in a directory that satisfy the predicate. The listing is not held in memory as a whole. */
export const names = (
  directory: string,
  predicate: (name: string) => boolean
): Effect.Effect<ReadonlyArray<string>, FileError> =>
  attempt(async () => {
    const found: Array<string> = []
    for await (const { name } of await Fs.opendir(directory, { bufferSize: 1024 })) {
      if (predicate(name)) found.push(name)
    }
    return found
  })

/** The paths of temporary files that a crash may have left. */
export const temporaries = (directory: string): Effect.Effect<ReadonlyArray<string>, FileError> =>
  Effect.map(names(directory, isTemporary), (names) => names.map((name) => Path.join(directory, name)))

/**
 * Removes the temporary files that a crash has left. What cannot be removed, such as another user's directory, stays
 * and is logged.
 */
export const removeTemporaries = (directory: string): Effect.Effect<void, FileError> =>
  Effect.flatMap(
    temporaries(directory),
    Effect.forEach(
      (path) => Effect.catchAll(remove(path), ({ message }) => Effect.logWarning(`${path} stays: ${message}`)),
      { discard: true }
    )
  )
