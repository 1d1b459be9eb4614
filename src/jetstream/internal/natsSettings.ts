/** How to reach NATS, read from settings: addresses, credentials and files. */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Redacted from "effect/Redacted"
import type * as Connection from "../Connection.js"
import type * as JetStreamSink from "../JetStreamSink.js"
import { messageOf, quote } from "../../internal/printable.js"
import * as RegularFile from "../../node/regularFile.js"

export interface Addresses {
  readonly servers: ReadonlyArray<string>
  /** The user and password of the first address that has them. */
  readonly credentials: Connection.Credentials | undefined
}

const valid =
  "valid is nats://user:password@host:port (tls:// to require TLS), separated by commas, with special characters in user and password percent-encoded"

const parseAddress = (text: string): Either.Either<URL, string> => {
  const withScheme = text.includes("://") ? text : `nats://${text}`
  const url = URL.canParse(withScheme) ? new URL(withScheme) : undefined
  return url !== undefined &&
    /^(nats|tls):$/.test(url.protocol) &&
    url.hostname !== "" &&
    /^\/?$/.test(url.pathname) &&
    url.search + url.hash === "" &&
    !/[@/?#]/.test(url.host)
    ? Either.right(url)
    : Either.left(`got an invalid NATS address (not shown, it may contain a password), ${valid}`)
}

const decode = (text: string): string => {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** An error never contains the text: a password may be in it. */
export const parseAddresses = (text: string): Either.Either<Addresses, string> =>
  Either.map(Either.all(text.split(",").map((address) => parseAddress(address.trim()))), (urls) => {
    const [named] = urls.filter(({ username }) => username !== "")
    const user = decode(named?.username ?? "")
    const secret = Redacted.make(decode(named?.password ?? ""))
    const withoutPassword: Connection.Credentials = { _tag: "token", token: Redacted.make(user) }
    return {
      servers: urls.map((url) => `${url.protocol}//${url.hostname}:${url.port || "4222"}`),
      // As in other NATS clients, a user without a password is a token.
      credentials:
        named === undefined
          ? undefined
          : named.password === ""
            ? withoutPassword
            : { _tag: "password", user, password: secret }
    }
  })

export const parseDeduplication = (text: string): Either.Either<JetStreamSink.Deduplication, string> =>
  text === "lookup" || text === "subject"
    ? Either.right(text)
    : Either.left(`got ${quote(text)}, valid is lookup or subject`)

export const parsePublish = (text: string): Either.Either<JetStreamSink.Publish, string> =>
  text === "message" || text === "batch" || text === "auto"
    ? Either.right(text)
    : Either.left(`got ${quote(text)}, valid is message, batch or auto`)

const cannotRead = (path: string) => (cause: unknown) => `cannot read ${quote(path)}: ${messageOf(cause)}`

/** Reads a file that holds a secret. */
export const readSecret = (path: string): Effect.Effect<Redacted.Redacted, string> =>
  Effect.tryPromise({ try: () => RegularFile.readSetting(path), catch: cannotRead(path) }).pipe(
    Effect.map(Redacted.make)
  )

/** Returns the path if the file can be read. */
export const readable = (path: string): Effect.Effect<string, string> =>
  Effect.tryPromise({ try: () => RegularFile.readSetting(path), catch: cannotRead(path) }).pipe(Effect.as(path))
