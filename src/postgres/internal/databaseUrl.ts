/** Connection URLs of PostgreSQL: checked before they are used, and shown without what is secret in them. */
import * as Either from "effect/Either"
import * as Redacted from "effect/Redacted"
import * as Pg from "pg"
import { oneLine } from "../../internal/printable.js"

const valid =
  "valid is postgres://user:password@host:port/database, with special characters in user and password percent-encoded"

// The driver reads a socket's directory from the query, and then the URL has no host.
const parseUrl = (text: string): URL | undefined =>
  [text, text.replace("@/", "@localhost/"), text.replace(":///", "://localhost/")]
    .filter((candidate) => URL.canParse(candidate))
    .map((candidate) => new URL(candidate))[0]

/** Never answers the text in an error: the password is in it, and where it breaks the URL nobody can tell which part. */
export const parse = (text: string): Either.Either<Redacted.Redacted, string> => {
  const url = parseUrl(text.trim())
  if (url === undefined || !/^postgres(ql)?:$/.test(url.protocol)) {
    return Either.left(`got no URL of PostgreSQL (not shown here, it may hold a password), ${valid}`)
  }
  // A / # ? in the password ends the host, and what is left would be taken for something else and be shown.
  if (/^[^:]*:\/\/[^/?#]*[/?#].*[@#]/s.test(text) || url.hash !== "") {
    return Either.left(`got a URL with special characters (not shown here, it may hold a password), ${valid}`)
  }
  return Either.try({
    // Also reads the files of certificates that the URL names.
    try: () => new Pg.Client({ connectionString: text.trim() }),
    catch: (cause) => `cannot be used: ${cause instanceof Error ? oneLine(cause.message) : "the driver refuses it"}`
  }).pipe(Either.map(() => Redacted.make(text.trim())))
}

/** What is connected to, with what the driver fills in, and without the password. */
export const describe = (url: Redacted.Redacted): string => {
  const { database = "", host, port, user = "" } = new Pg.Client({ connectionString: Redacted.value(url) })
  return host.startsWith("/") ? `${database} at ${host} as ${user}` : `postgres://${user}@${host}:${port}/${database}`
}
