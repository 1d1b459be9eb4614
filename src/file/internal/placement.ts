/**
 * Makes the files of a batch appear so that a power loss keeps the order of each key.
 *
 * Until the directory is synced, a file system may keep a later rename and lose an earlier one. A sync after each
 * rename would cost one sync per event. Instead, a batch with several events of a key first writes to `.placing` which
 * temporary file gets which name, and syncs the directory once. So temporary files and list are on the disk before the
 * first rename. After a crash the next holder of the directory redoes the lost renames.
 */
import * as Effect from "effect/Effect"
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import * as ControlVersion from "../../ControlVersion.js"
import { fileName, isEventFile, maxEventBytes } from "./fileName.js"
import * as Files from "./files.js"
import * as VersionFile from "./versionFile.js"

const name = ".placing"

/** Of 10,000 events with the longest names. */
const maxBytes = 8 * 1024 * 1024

/** A temporary file and its final name, both without a directory. */
export type Step = readonly [temporary: string, name: string]

/** Records the coming renames, in order, and syncs all names in the directory to the disk. */
export const announce = (directory: string, steps: ReadonlyArray<Step>): Effect.Effect<void, Files.FileError> =>
  Files.replace(directory, name, JSON.stringify(steps), 0o600)

/** Forgets the recorded renames: they are on the disk, or must not be done. */
export const forget = (directory: string): Effect.Effect<void, Files.FileError> =>
  Files.remove(Path.join(directory, name))

/** Redoes the recorded renames that a crash lost, and returns how many files appeared. */
export const recover = (directory: string): Effect.Effect<number, Files.FileError> =>
  Effect.gen(function* () {
    const text = yield* Files.ifPresent(Files.readOwn(Path.join(directory, name), maxBytes))
    if (text === undefined) return 0
    let placed = 0
    // Files after one that is lost for good must not appear before its event comes again.
    for (const [temporary, final] of parse(text)) {
      if (yield* isThere(Path.join(directory, final))) continue
      if (!(yield* isWhole(Path.join(directory, temporary), final))) break
      yield* Files.rename(Path.join(directory, temporary), Path.join(directory, final))
      placed++
    }
    yield* Files.syncDirectory(directory)
    yield* forget(directory)
    return placed
  })

const isThere = (path: string): Effect.Effect<boolean, Files.FileError> =>
  Effect.map(Files.ifPresent(Files.attempt(() => Fs.lstat(path))), (found) => found !== undefined)

/** Tells whether a temporary file holds the event of the name. */
const isWhole = (path: string, final: string): Effect.Effect<boolean, Files.FileError> =>
  Files.ifPresent(Files.read(path, maxEventBytes)).pipe(
    Effect.map((text) => {
      const { control_version, event_id } = VersionFile.parse(text ?? "")
      return typeof event_id === "string" && fileName(event_id) === final && ControlVersion.is(control_version)
    }),
    Effect.catchIf(Files.isNoFile, () => Effect.succeed(false))
  )

const isStep = (value: unknown): value is Step =>
  Array.isArray(value) &&
  value.length === 2 &&
  value.every((name): name is string => typeof name === "string" && !/[/\\\0]/.test(name)) &&
  Files.isTemporary(value[0]!) &&
  isEventFile(value[1]!)

const parse = (text: string): ReadonlyArray<Step> => {
  try {
    const value: unknown = JSON.parse(text)
    return Array.isArray(value) && value.every(isStep) ? value : []
  } catch {
    return []
  }
}
