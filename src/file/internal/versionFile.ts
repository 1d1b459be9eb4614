/** Remembers which versions were assigned, so that a restart need not read every event. */
import * as Effect from "effect/Effect"
import * as Path from "node:path"
import * as ControlVersion from "../../ControlVersion.js"
import * as Files from "./files.js"
import { isEventFile, maxEventBytes } from "./fileName.js"

const name = ".next-version"

const maxBytes = 1024

/** Records that versions from `next` on are free after a restart. */
export const write = (directory: string, next: number): Effect.Effect<void, Files.FileError> =>
  Files.replace(directory, name, `${next}\n`, 0o600)

/** Reads the first free version, however the last holder of the directory ended. */
export const read = (directory: string): Effect.Effect<number, Files.FileError> =>
  Effect.gen(function* () {
    const text = yield* Files.ifPresent(Files.readOwn(Path.join(directory, name), maxBytes))
    const next = /^\d+$/.test(text?.trim() ?? "") ? Number(text) : undefined
    return ControlVersion.is(next) ? next : yield* scan(directory, text === undefined ? "is missing" : "is malformed")
  })

/** The unvalidated `event_id` and `control_version` in the text of an event's file. */
export const parse = (text: string): { readonly event_id?: unknown; readonly control_version?: unknown } => {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === "object" && value !== null ? value : {}
  } catch {
    return {}
  }
}

/** The text of an event's file, or `undefined` if something else has its name: it holds no event. */
const readEvent = (directory: string, file: string): Effect.Effect<string | undefined, Files.FileError> =>
  Effect.catchIf(Files.read(Path.join(directory, file), maxEventBytes), Files.isNoFile, () => Effect.succeed(undefined))

const scan = (directory: string, why: string): Effect.Effect<number, Files.FileError> =>
  Effect.gen(function* () {
    const files = yield* Files.names(directory, isEventFile)
    let highest = 0
    let unreadable = 0
    yield* Effect.forEach(
      files,
      (file) =>
        Effect.map(readEvent(directory, file), (text) => {
          const version = text === undefined ? undefined : parse(text).control_version
          if (ControlVersion.is(version)) highest = Math.max(highest, version)
          else unreadable++
        }),
      { concurrency: 16, discard: true }
    )
    if (files.length > 0) {
      yield* Effect.logWarning(
        `${Path.join(directory, name)} ${why}: read ${files.length} event files, the next version is ${highest + 1}`
      ).pipe(Effect.annotateLogs({ without_a_version: unreadable }))
      yield* write(directory, highest + 1)
    }
    return highest + 1
  })
