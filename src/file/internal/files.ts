/** What feeds and artifacts in directories need of a file system, each operation as an Effect. */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Fs from "node:fs/promises"
import * as Path from "node:path"

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
 * Waits for the operation even when interrupted: nothing can take it back, and who went on without it would race with
 * it.
 */
export const attempt = <A>(operation: () => Promise<A>): Effect.Effect<A, FileError> =>
  Effect.uninterruptible(Effect.tryPromise({ try: operation, catch: toFileError }))

/** Succeeds with `undefined` where an operation fails because there is no such file. */
export const ifPresent = <A>(self: Effect.Effect<A, FileError>): Effect.Effect<A | undefined, FileError> =>
  Effect.catchIf(
    self,
    (error) => error.code === "ENOENT",
    () => Effect.succeed(undefined)
  )

/** What temporary files start with. */
const temporary = ".tmp-"

/** A temporary name in the directory, where a rename is atomic. Readers ignore it. */
export const temporaryPath = (directory: string, name: string | number): string =>
  Path.join(directory, `${temporary}${name}`)

/** Writes a file that is on the disk when this ends, but for its name. */
export const write = (path: string, contents: string | Uint8Array): Effect.Effect<void, FileError> =>
  attempt(async () => {
    const file = await Fs.open(path, "w")
    try {
      await file.writeFile(contents)
      await file.sync()
    } finally {
      await file.close()
    }
  })

/** Brings the names in the directory to the disk. */
export const syncDirectory = (directory: string): Effect.Effect<void, FileError> =>
  attempt(async () => {
    const handle = await Fs.open(directory, "r")
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  })

export const read = (path: string): Effect.Effect<string, FileError> => attempt(() => Fs.readFile(path, "utf8"))

export const readBytes = (path: string): Effect.Effect<Uint8Array, FileError> => attempt(() => Fs.readFile(path))

export const exists = (path: string): Effect.Effect<boolean, FileError> =>
  Effect.map(ifPresent(attempt(() => Fs.stat(path))), (found) => found !== undefined)

/** Which file system the path is on. */
export const device = (path: string): Effect.Effect<number, FileError> =>
  Effect.map(
    attempt(() => Fs.stat(path)),
    ({ dev }) => dev
  )

export const rename = (from: string, to: string): Effect.Effect<void, FileError> => attempt(() => Fs.rename(from, to))

export const remove = (path: string): Effect.Effect<void, FileError> => attempt(() => Fs.rm(path, { force: true }))

/** Replaces a file as a whole: a crash leaves the old text or the new. */
export const replace = (directory: string, name: string, text: string): Effect.Effect<void, FileError> => {
  const path = temporaryPath(directory, name)
  return write(path, text).pipe(
    Effect.zipRight(rename(path, Path.join(directory, name))),
    Effect.onError(() => Effect.ignoreLogged(remove(path))),
    Effect.zipRight(syncDirectory(directory))
  )
}

/**
 * Makes the directory with its parents, all of them on the disk when this ends. Not with the `recursive` of Node, which
 * goes on for ever where a parent is there and yet takes no directory, as under `/proc`.
 */
export const makeDirectory = (directory: string): Effect.Effect<void, FileError> =>
  Effect.flatMap(makeMissing(directory), (made) =>
    Effect.forEach(made, (path) => syncDirectory(Path.dirname(path)), { discard: true })
  )

/** The directories that were missing and are made now, the innermost first. */
const makeMissing = (directory: string): Effect.Effect<ReadonlyArray<string>, FileError> => {
  const parent = Path.dirname(directory)
  const make = Effect.as(
    attempt(() => Fs.mkdir(directory)),
    [directory]
  )
  return make.pipe(
    Effect.catchIf(
      ({ code }) => code === "ENOENT" && parent !== directory,
      () => Effect.zipWith(makeMissing(parent), make, (outer, inner) => [...inner, ...outer])
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

/** The names in a directory that satisfy the predicate, which is not read into memory as a whole. */
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

/** The paths of the temporary files, of which a crash leaves some. */
export const temporaries = (directory: string): Effect.Effect<ReadonlyArray<string>, FileError> =>
  Effect.map(
    names(directory, (name) => name.startsWith(temporary)),
    (names) => names.map((name) => Path.join(directory, name))
  )

/** Removes the temporary files that a crash has left. */
export const removeTemporaries = (directory: string): Effect.Effect<void, FileError> =>
  Effect.flatMap(temporaries(directory), Effect.forEach(remove, { discard: true }))
