/**
 * Artifacts in a directory, which the nodes mount or copy.
 *
 * An artifact is `sha256/<two digits>/<the other digits>`. It appears whole and never changes. References of other
 * forms are read as paths within the directory, so you can put artifacts there by other means; `list`, and so a sweep,
 * knows only those that were `put`.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import { modesOf, type Access } from "./internal/access.js"
import * as Files from "./internal/files.js"
import { ArtifactError, ArtifactStore, missing, verify, type Artifact } from "../fleet/ArtifactStore.js"
import { referenceOf } from "../fleet/internal/checksum.js"
import { layerConfig as makeLayerConfig, type LayerConfig } from "../internal/layerConfig.js"

/**
 * Where the artifacts are, and who may read them.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Relative to the working directory. The first `put` creates it if it is missing. */
  readonly directory: string
  /**
   * Who may read artifacts: `owner`, the user that puts them; `group`, its group as well; `all`, every user of the
   * machine. Default `owner`.
   */
  readonly access?: Access | undefined
  /** The largest artifact in bytes. An artifact is read into memory as a whole. Default 256 MiB. */
  readonly maxBytes?: number | undefined
}

/**
 * The default limit of an artifact in bytes: 256 MiB.
 *
 * @since 0.1.0
 * @category defaults
 */
export const defaultMaxBytes: number = 256 * 1024 * 1024

/** Writing an artifact takes less than this, in milliseconds. Older unfinished files belong to dead processes. */
const abandonedAfter = 24 * 60 * 60 * 1_000

const root = "sha256"

/**
 * The prefix of names of artifacts that a sweep takes away. The name says which artifact it is, so that it can be
 * restored.
 */
const taken = /^\.tmp-taken-sha256-([0-9a-f]{2})-([0-9a-f]{62})-/

const isRange = (name: string): boolean => /^[0-9a-f]{2}$/.test(name)

const isRest = (name: string): boolean => /^[0-9a-f]{62}$/.test(name)

// Names that begin with a dot are the store's own.
const isWithin = (artifactRef: string): boolean =>
  !/[\\\0]/.test(artifactRef) && artifactRef.split("/").every((name) => name !== "" && !name.startsWith("."))

const escapes = (artifactRef: string) =>
  new ArtifactError({
    artifactRef,
    reason: "invalid",
    message: `The reference ${JSON.stringify(artifactRef)} leads out of the artifacts' directory, or to none of its artifacts`
  })

const noArtifact = (artifactRef: string, why: string) =>
  new ArtifactError({
    artifactRef,
    reason: "corrupt",
    message: `The artifact ${JSON.stringify(artifactRef)} cannot be read: ${why}`
  })

const tooLarge = (artifactRef: string, bytes: number, maxBytes: number) =>
  new ArtifactError({
    artifactRef,
    reason: "invalid",
    message: `The artifact has ${bytes} bytes and the maximum is ${maxBytes}: raise maxBytes here and ARTIFACT_MAX_BYTES on the nodes`
  })

/**
 * Makes a store in a directory.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options): Effect.Effect<ArtifactStore["Type"]> =>
  Effect.gen(function* () {
    const directory = Path.resolve(options.directory)
    const modes = modesOf(options.access)
    const maxBytes = options.maxBytes ?? defaultMaxBytes

    const unavailable =
      (doing: string, artifactRef = "") =>
      (error: Files.FileError) =>
        new ArtifactError({
          artifactRef,
          reason: "unavailable",
          message: `Cannot ${doing} in ${directory}: ${error.message}`,
          cause: error.cause
        })

    /** Returns `undefined` if there is no regular file. */
    const modifiedAt = (path: string): Effect.Effect<number | undefined, Files.FileError> =>
      Effect.map(Files.ifPresent(Files.attempt(() => Fs.lstat(path))), (found) =>
        found?.isFile() === true ? found.mtimeMs : undefined
      )

    const touch = (path: string): Effect.Effect<void, Files.FileError> =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => Files.attempt(() => Fs.lutimes(path, now / 1_000, now / 1_000)))

    const temporary = (prefix = "") => Files.temporaryPath(directory, prefix)

    const bringBack = (away: string, path: string): Effect.Effect<void, Files.FileError> =>
      Files.attempt(() => Fs.link(away, path)).pipe(
        Effect.catchIf(
          ({ code }) => code === "EEXIST" || code === "ENOENT",
          () => Effect.void
        ),
        Effect.zipRight(Files.remove(away))
      )

    const removeAbandoned = Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      for (const path of (yield* Files.ifPresent(Files.temporaries(directory))) ?? []) {
        const [, range, rest] = taken.exec(Path.basename(path)) ?? []
        if (range !== undefined && rest !== undefined) {
          // From a sweep that died before it knew whether a `put` was faster. An artifact that was put since stays.
          yield* bringBack(path, Path.join(directory, root, range, rest))
          continue
        }
        const at = yield* modifiedAt(path)
        if (at !== undefined && at < now - abandonedAfter) yield* Files.remove(path)
      }
    }).pipe(Effect.catchAll((error) => Effect.logWarning(`Unfinished artifacts stay in ${directory}`, error)))

    const tidy = yield* Effect.cached(removeAbandoned)

    /** Our directory may have been replaced by a link to another place. */
    const ensureWithin = (path: string): Effect.Effect<void, Files.FileError> =>
      Effect.gen(function* () {
        const base = yield* Files.attempt(() => Fs.realpath(directory))
        const found = yield* Files.attempt(() => Fs.realpath(path))
        if (!found.startsWith(base + Path.sep)) {
          const message = `${path} is a link that leads out of the directory`
          return yield* new Files.FileError({ code: "ELOOP", message, cause: undefined })
        }
      })

    const write = (path: string, bytes: Uint8Array): Effect.Effect<void, Files.FileError> => {
      const unfinished = temporary()
      return Files.makeDirectory(Path.dirname(path), modes.directory).pipe(
        Effect.zipRight(ensureWithin(Path.dirname(path))),
        Effect.zipRight(Files.create(unfinished, bytes, modes.file)),
        Effect.zipRight(touch(unfinished)),
        Effect.zipRight(Files.rename(unfinished, path)),
        Effect.onError(() => Effect.ignoreLogged(Files.remove(unfinished)))
      )
    }

    /** Whether the file holds the bytes, and not a link, a pipe or something larger. */
    const holds = (path: string, bytes: Uint8Array): Effect.Effect<boolean, Files.FileError> =>
      Files.ifPresent(Files.readContents(path, bytes.length)).pipe(
        Effect.map((found) => found !== undefined && found.bytes.equals(bytes)),
        Effect.catchIf(Files.isNoFile, () => Effect.succeed(false))
      )

    /** Finds the file of a reference, following links. */
    const locate = (artifactRef: string): Effect.Effect<string, ArtifactError | Files.FileError> =>
      Effect.gen(function* () {
        if (!isWithin(artifactRef)) return yield* escapes(artifactRef)
        const base = yield* Files.attempt(() => Fs.realpath(directory))
        const path = yield* Files.attempt(() => Fs.realpath(Path.join(directory, artifactRef)))
        return path.startsWith(base + Path.sep) ? path : yield* escapes(artifactRef)
      })

    return ArtifactStore.of({
      put: (bytes) =>
        Effect.gen(function* () {
          const reference = referenceOf(bytes)
          if (bytes.length > maxBytes) return yield* tooLarge(reference.artifact_ref, bytes.length, maxBytes)
          yield* tidy
          const path = Path.join(directory, reference.artifact_ref)
          // A damaged artifact is repaired, and one that a sweep takes away at this moment is written again.
          const touched = (yield* holds(path, bytes)) ? yield* Files.ifPresent(Effect.as(touch(path), true)) : undefined
          if (touched !== true) yield* write(path, bytes)
          // Also if it is already there: the process that put it may have died before this.
          yield* Files.syncDirectory(Path.dirname(path))
          return reference
        }).pipe(Effect.catchTag("FileError", (error) => unavailable("keep an artifact")(error))),

      get: (reference) =>
        locate(reference.artifact_ref).pipe(
          Effect.flatMap((path) => Files.readContents(path, maxBytes)),
          Effect.catchTag("FileError", (error) => {
            const { artifact_ref } = reference
            if (error.code === "ENOENT" || error.code === "ENOTDIR") return missing(artifact_ref)
            if (error.code === "EISDIR") return escapes(artifact_ref)
            return Files.isNoFile(error)
              ? noArtifact(artifact_ref, error.message)
              : unavailable(`read the artifact ${JSON.stringify(artifact_ref)}`, artifact_ref)(error)
          }),
          Effect.flatMap(({ bytes }) => verify(bytes, reference))
        ),

      list: Stream.fromIterableEffect(
        Effect.zipRight(removeAbandoned, directories(Path.join(directory, root), isRange))
      ).pipe(
        Stream.mapEffect((range) =>
          Effect.map(directories(Path.join(directory, root, range), isRest), (names) =>
            names.map((name) => `${root}/${range}/${name}`)
          )
        ),
        Stream.flattenIterables,
        Stream.mapEffect((artifactRef) =>
          Effect.map(modifiedAt(Path.join(directory, artifactRef)), (putAt): ReadonlyArray<Artifact> =>
            putAt === undefined ? [] : [{ artifactRef, putAt }]
          )
        ),
        Stream.flattenIterables,
        Stream.mapError(unavailable("list artifacts"))
      ),

      // Taken away first and restored if a `put` was faster. A later `put` finds nothing and writes.
      remove: (artifactRef, notPutAfter) =>
        Effect.gen(function* () {
          if (!isWithin(artifactRef)) return yield* escapes(artifactRef)
          const path = Path.join(directory, artifactRef)
          const putAt = yield* modifiedAt(path)
          if (putAt === undefined || putAt > notPutAfter) return false
          const away = temporary(`taken-${artifactRef.replaceAll("/", "-").slice(0, 100)}-`)
          if ((yield* Files.ifPresent(Effect.as(Files.rename(path, away), true))) === undefined) return false
          const takenAt = yield* modifiedAt(away)
          if (takenAt === undefined) return false
          if (takenAt > notPutAfter) {
            yield* bringBack(away, path)
            return false
          }
          yield* Files.remove(away)
          return true
        }).pipe(
          Effect.uninterruptible,
          Effect.catchTag("FileError", (error) =>
            unavailable(`remove the artifact ${JSON.stringify(artifactRef)}`, artifactRef)(error)
          )
        )
    })
  })

/**
 * Stores artifacts in a directory.
 *
 * @example
 * import { FileArtifactStore } from "controlpublish/file"
 *
 * export const ArtifactsLive = FileArtifactStore.layer({ directory: "artifacts", access: "group" })
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: Options): Layer.Layer<ArtifactStore> => Layer.effect(ArtifactStore, make(options))

const directories = (
  path: string,
  predicate: (name: string) => boolean
): Effect.Effect<ReadonlyArray<string>, Files.FileError> =>
  Effect.map(Files.ifPresent(Files.names(path, predicate)), (names) => names ?? [])

/**
 * Provides the same as {@link layer}, its options read from `Config`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig: LayerConfig<Options, ArtifactStore, never, never> = makeLayerConfig(layer)
