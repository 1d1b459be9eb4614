/**
 * What tells a feed from one that takes its place: a file with a random id, made with the feed. A copy of the feed has the
 * id of the original.
 */
import * as Effect from "effect/Effect"
import { randomUUID } from "node:crypto"
import * as Path from "node:path"
import * as Files from "./files.js"

const name = ".feed-id"

const maxBytes = 1024

/** The code of the error of a file that holds something else. */
export const malformed = "EBADMSG"

const fileOf = (directory: string): string => Path.join(directory, name)

const valid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

/** The identity of the feed in the directory, `""` where it has none. */
export const read = (directory: string): Effect.Effect<string, Files.FileError> =>
  Effect.gen(function* () {
    const text = (yield* Files.ifPresent(Files.readOwn(fileOf(directory), maxBytes)))?.trim()
    if (text === undefined) return ""
    return valid.test(text)
      ? text
      : yield* new Files.FileError({
          code: malformed,
          message: `${fileOf(directory)} holds no id: restore it, or delete it and start every node anew`,
          cause: undefined
        })
  })

/**
 * Gives the feed an identity if it has none. It is on the disk when this ends. Answers whether the feed got it now.
 */
export const ensure = (directory: string, mode: number): Effect.Effect<boolean, Files.FileError> =>
  Effect.gen(function* () {
    if ((yield* read(directory)) !== "") return false
    yield* Files.replace(directory, name, `${randomUUID()}\n`, mode)
    return true
  })
