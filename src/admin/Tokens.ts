/**
 * The tokens of the admin API with their names and roles, from a setting or from a file that may change at any time.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Redacted from "effect/Redacted"
import { createHash, timingSafeEqual } from "node:crypto"
import { stat } from "node:fs/promises"
import * as RegularFile from "../node/regularFile.js"

/**
 * `read` may read everything, `operate` may also make changes.
 *
 * @since 0.1.0
 * @category models
 */
export type Role = "read" | "operate"

/**
 * A token's holder, role and SHA-256 digest.
 *
 * @since 0.1.0
 * @category models
 */
export interface Entry {
  /** As the audit names the holder. */
  readonly holder: string
  readonly role: Role
  readonly digest: Buffer
}

/**
 * The tokens that are valid now.
 *
 * @since 0.1.0
 * @category models
 */
export type Tokens = Effect.Effect<ReadonlyArray<Entry>>

/**
 * The minimum length of a token. 16 random letters and digits cannot be guessed.
 *
 * @since 0.1.0
 * @category constants
 */
export const minLength = 16

/** Milliseconds between two checks of the file. */
const period = 1_000

const digestOf = (text: string): Buffer => createHash("sha256").update(text).digest()

/**
 * Checks the characters and the length of a token. The failure does not quote the token.
 *
 * @since 0.1.0
 * @category validation
 */
export const check = (text: string): Either.Either<Redacted.Redacted, string> => {
  if (!/^[\x21-\x7e]+$/.test(text)) {
    return Either.left("has invalid characters (not shown here), valid are letters, digits and signs of ASCII")
  }
  return text.length < minLength
    ? Either.left(`has ${text.length} characters, the minimum is ${minLength}: take the output of openssl rand -hex 24`)
    : Either.right(Redacted.make(text))
}

/**
 * Makes the entry of a single token with the role `operate`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const single = (token: Redacted.Redacted): Entry => ({
  holder: "the holder of the token",
  role: "operate",
  digest: digestOf(Redacted.value(token))
})

/**
 * Finds the entry of a token in constant time.
 *
 * @since 0.1.0
 * @category accessors
 */
export const find = (entries: ReadonlyArray<Entry>, token: string): Entry | undefined => {
  const given = digestOf(token)
  let found: Entry | undefined
  for (const entry of entries) if (timingSafeEqual(entry.digest, given)) found = entry
  return found
}

const parseLine = (line: string): Either.Either<Entry, string> => {
  const [holder = "", role = "", token = "", ...rest] = line.trim().split(/\s+/)
  if (token === "" || rest.length > 0) return Either.left("valid is <name> <read or operate> <token>")
  if (!/^[\w.@-]{1,64}$/.test(holder)) {
    return Either.left("the name is invalid, valid are up to 64 letters, digits and the signs . _ @ -")
  }
  if (role !== "read" && role !== "operate") return Either.left("the role is invalid, valid is read or operate")
  const hash = /^sha256:([0-9a-f]{64})$/i.exec(token)?.[1]
  if (hash !== undefined) return Either.right({ holder, role, digest: Buffer.from(hash, "hex") })
  return Either.mapBoth(check(token), {
    onLeft: (reason) => `the token ${reason}`,
    onRight: () => ({ holder, role, digest: digestOf(token) })
  })
}

/**
 * Parses the lines `<name> <role> <token>` of a file. The token may be given as `sha256:` and the 64 hexadecimal digits of
 * its digest. Empty lines and lines that begin with `#` count for nothing. The failure names the line and never its text.
 *
 * @since 0.1.0
 * @category parsing
 */
export const parse = (text: string): Either.Either<ReadonlyArray<Entry>, string> => {
  const entries: Array<Entry> = []
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    if (/^\s*(#|$)/.test(line)) continue
    const entry = parseLine(line)
    if (Either.isLeft(entry)) return Either.left(`line ${index + 1}: ${entry.left}`)
    entries.push(entry.right)
  }
  return entries.length === 0 ? Either.left("it has no token") : Either.right(entries)
}

const load = (path: string): Effect.Effect<ReadonlyArray<Entry>, string> =>
  Effect.tryPromise({
    try: () => RegularFile.readSetting(path),
    catch: (cause) => (cause instanceof Error ? cause.message : String(cause))
  }).pipe(Effect.flatMap(parse))

/** Changes whenever the file does, even if it is replaced within the clock's resolution. */
const stampOf = (path: string): Effect.Effect<string> =>
  Effect.promise(() =>
    stat(path, { bigint: true }).then(
      ({ ctimeNs, ino, mtimeNs, size }) => `${ino} ${size} ${mtimeNs} ${ctimeNs}`,
      () => "missing"
    )
  )

/**
 * Reads the tokens of a file, and again within a second of its change. Fails if the file cannot be read at first. If it
 * becomes unreadable later, the error is logged and the tokens before stay valid.
 *
 * @since 0.1.0
 * @category constructors
 */
export const fromFile = (path: string): Effect.Effect<Tokens, string> =>
  Effect.gen(function* () {
    let stamp = yield* stampOf(path)
    let entries = yield* load(path)
    let lookedAt = yield* Clock.currentTimeMillis
    return Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      if (now - lookedAt < period) return entries
      lookedAt = now
      const found = yield* stampOf(path)
      if (found === stamp) return entries
      stamp = found
      const loaded = yield* Effect.either(load(path))
      if (Either.isLeft(loaded)) {
        yield* Effect.logError(`ADMIN_TOKENS_FILE: ${loaded.left}: the tokens that it had before stay valid`)
        return entries
      }
      entries = loaded.right
      yield* Effect.logInfo(`ADMIN_TOKENS_FILE has changed: ${entries.length} tokens are valid`)
      return entries
    })
  })
