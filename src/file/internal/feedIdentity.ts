/**
 * The identity of a feed: a file with a random id, created with the feed, that distinguishes it from another one in its
 * place. A copy of the feed has the id of the original.
 */
import * as Effect from "effect/Effect"
import { randomUUID } from "node:crypto"
import * as Path from "node:path"
import * as Files from "./files.js"

const name = ".feed-id"

const maxBytes = 1024

/** The error code of an invalid identity file. */
export const malformed = "EBADMSG"

const fileOf = (directory: string): string => Path.join(directory, name)

const valid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

/** Reads the identity of the feed in the directory, `""` if it has none. */
export const read = (directory: string): Effect.Effect<string, Files.FileError> =>
  Effect.gen(function* () {
    const text = (yield* Files.ifPresent(Files.readOwn(fileOf(directory), maxBytes)))?.trim()
    if (text === undefined) return ""
    return valid.test(text)
      ? text
      : yield* new Files.FileError({
          code: malformed,
          message: `${fileOf(directory)} holds no valid id: restore it, or delete it and start every node again`,
          cause: undefined
        })
  })

/**
 * Gives the feed an identity if it has none, and syncs it to the disk. Returns whether the identity is new.
 */
export const ensure = (directory: string, mode: number): Effect.Effect<boolean, Files.FileError> =>
  Effect.gen(function* () {
    if ((yield* read(directory)) !== "") return false
    yield* Files.replace(directory, name, `${randomUUID()}\n`, mode)
    return true
  })
