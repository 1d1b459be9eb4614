/** Connection URLs of PostgreSQL: validation, and display without secrets. */
import * as Either from "effect/Either"
import * as Redacted from "effect/Redacted"
import * as Pg from "pg"
import { oneLine } from "../../internal/printable.js"

const valid =
  "valid is postgres://user:password@host:port/database, with special characters in user and password percent-encoded"

// A URL with the directory of a socket in its query has no host.
const parseUrl = (text: string): URL | undefined =>
  [text, text.replace("@/", "@localhost/"), text.replace(":///", "://localhost/")]
    .filter((candidate) => URL.canParse(candidate))
    .map((candidate) => new URL(candidate))[0]

/** An error never contains the text: it contains the password, and in an invalid URL its place is unknown. */
export const parse = (text: string): Either.Either<Redacted.Redacted, string> => {
  const url = parseUrl(text.trim())
  if (url === undefined || !/^postgres(ql)?:$/.test(url.protocol)) {
    return Either.left(`got an invalid PostgreSQL URL (not shown, it may contain a password), ${valid}`)
  }
  // A / # ? in the password ends the host, and the rest would be mistaken for another part and shown.
  if (/^[^:]*:\/\/[^/?#]*[/?#].*[@#]/s.test(text) || url.hash !== "") {
    return Either.left(`got a URL with special characters (not shown, it may contain a password), ${valid}`)
  }
  return Either.try({
    // Also reads the certificate files of the URL.
    try: () => new Pg.Client({ connectionString: text.trim() }),
    catch: (cause) => `cannot be used: ${cause instanceof Error ? oneLine(cause.message) : "the driver refuses it"}`
  }).pipe(Either.map(() => Redacted.make(text.trim())))
}

/** The target with the driver's defaults and without the password. */
export const describe = (url: Redacted.Redacted): string => {
  const { database = "", host, port, user = "" } = new Pg.Client({ connectionString: Redacted.value(url) })
  return host.startsWith("/") ? `${database} at ${host} as ${user}` : `postgres://${user}@${host}:${port}/${database}`
}
