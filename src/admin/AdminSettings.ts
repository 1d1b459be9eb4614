/**
 * The settings of the admin API: where it listens, and where a command finds it.
 *
 * @since 1.0.0
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Redacted from "effect/Redacted"
import { quote } from "../internal/printable.js"
import * as Setting from "../Setting.js"
import { isLoopback } from "./internal/loopback.js"

const defaultPort = 7070

/**
 * Where the admin API listens.
 *
 * @since 1.0.0
 * @category models
 */
export interface Listening {
  readonly host: string
  /** 0: any that is free. */
  readonly port: number
  /** Whether a port that is taken is replaced by one that is free. */
  readonly orFree: boolean
  readonly token: Redacted.Redacted | undefined
}

/**
 * The service that a command talks to.
 *
 * @since 1.0.0
 * @category models
 */
export interface Client {
  readonly url: string
  readonly token: Redacted.Redacted | undefined
}

const host = Setting.make({
  env: "ADMIN_HOST",
  flag: "admin-host",
  description:
    "The address on which admin API and dashboard listen; one that other machines reach requires ADMIN_TOKEN",
  default: "127.0.0.1",
  parse: Setting.text
})

const parsePort: Setting.Parse<number | "off"> = (text) => {
  if (text.trim().toLowerCase() === "off") return Either.right("off")
  const port = Setting.parseInteger(text)
  return port !== undefined && port <= 65_535
    ? Either.right(port)
    : Either.left(`got ${quote(text)}, valid is a port from 0 (any that is free) to 65535, or off`)
}

const port = Setting.make({
  env: "ADMIN_PORT",
  flag: "admin-port",
  description: "The port of admin API and dashboard, 0 for any free port, or off",
  defaultText: `${defaultPort}, or a free one where that is taken`,
  parse: parsePort
})

/** A header carries it. */
const parseToken: Setting.Parse<Redacted.Redacted> = (text) =>
  /^[\x21-\x7e]+$/.test(text)
    ? Either.right(Redacted.make(text))
    : Either.left("has characters that cannot be (not shown here), valid are letters, digits and signs of ASCII")

const token = Setting.make({
  env: "ADMIN_TOKEN",
  description: "The token that the admin API asks for before it changes anything",
  parse: parseToken
})

const parseUrl: Setting.Parse<string> = (text) => {
  const url = URL.canParse(text) ? new URL(text) : undefined
  return url !== undefined && /^https?:$/.test(url.protocol) && url.username === "" && url.search === ""
    ? Either.right(url.href.replace(/\/+$/, ""))
    : Either.left(`got ${quote(text)}, valid is e.g. http://127.0.0.1:${defaultPort}`)
}

const url = Setting.make({
  env: "ADMIN_URL",
  flag: "admin-url",
  description: "The admin API of the service that a command talks to",
  default: `http://127.0.0.1:${defaultPort}`,
  parse: parseUrl
})

/**
 * The settings of those who listen.
 *
 * @since 1.0.0
 * @category declarations
 */
export const serverGroup: Setting.Group = { title: "Admin API and dashboard", settings: [host, port, token] }

/**
 * The settings of those who call.
 *
 * @since 1.0.0
 * @category declarations
 */
export const clientGroup: Setting.Group = { title: "Admin API client", settings: [url, token] }

/**
 * Reads where the admin API listens. Absent where it is off.
 *
 * @since 1.0.0
 * @category reading
 */
export const server: Effect.Effect<Listening | undefined, Setting.InvalidSetting> = Effect.gen(function* () {
  const given = {
    port: yield* Setting.read(port),
    host: yield* Setting.read(host),
    token: yield* Setting.read(token)
  }
  if (given.port === "off") return undefined
  if (given.token === undefined && !isLoopback(given.host)) {
    return yield* Setting.invalid(
      token,
      `is missing, while ${host.env} is ${quote(given.host)}: others than this machine could change the outbox`
    )
  }
  return {
    host: given.host,
    port: given.port ?? defaultPort,
    orFree: given.port === undefined,
    token: given.token
  }
})

/**
 * Reads which service a command talks to.
 *
 * @since 1.0.0
 * @category reading
 */
export const client: Effect.Effect<Client, Setting.InvalidSetting> = Effect.all({
  url: Setting.read(url),
  token: Setting.read(token)
})
