/**
 * The settings of the admin API: where it listens, and where a command finds it.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Redacted from "effect/Redacted"
import { quote } from "../internal/printable.js"
import * as RegularFile from "../node/regularFile.js"
import * as Setting from "../Setting.js"
import { createSecureContext, type SecureContextOptions } from "node:tls"
import * as Addresses from "./internal/addresses.js"
import type { Tls } from "./internal/listener.js"
import { isLoopback } from "./internal/loopback.js"
import * as Tokens from "./Tokens.js"

const defaultPort = 7070

/**
 * Where the admin API listens.
 *
 * @since 0.1.0
 * @category models
 */
export interface Listening {
  readonly host: string
  /** 0 for any free port. */
  readonly port: number
  /** Whether to listen on a free port if this one is taken. */
  readonly orFree: boolean
  readonly token: Redacted.Redacted | undefined
  readonly tokens: Tokens.Tokens | undefined
  readonly allowedHosts: ReadonlySet<string>
  /** Absent: nobody's. */
  readonly isProxy: ((address: string | undefined) => boolean) | undefined
  readonly tls: Tls | undefined
}

/**
 * The service that a command talks to.
 *
 * @since 0.1.0
 * @category models
 */
export interface Client {
  readonly url: string | undefined
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

const token = Setting.make({
  env: "ADMIN_TOKEN",
  description: `The token that the admin API asks for and that commands send, ${Tokens.minLength} characters or more`,
  parse: Tokens.check
})

const tokensFile = Setting.make({
  env: "ADMIN_TOKENS_FILE",
  flag: "admin-tokens-file",
  description: "A file with a line <name> <read or operate> <token> for each token; it is read again when it changes",
  parse: Setting.text
})

const parseHosts: Setting.Parse<ReadonlySet<string>> = (text) => {
  const hosts = text.split(",").map((host) => host.trim().toLowerCase())
  const wrong = hosts.find((host) => !/^([a-z0-9_.-]+|\[[0-9a-f:]+\])(:\d{1,5})?$/.test(host))
  return wrong === undefined
    ? Either.right(new Set(hosts))
    : Either.left(`got ${quote(wrong)}, valid is a name with or without a port, several with commas between them`)
}

const allowedHosts = Setting.make({
  env: "ADMIN_ALLOWED_HOSTS",
  flag: "admin-allowed-hosts",
  description: "The names by which a proxy or DNS leads to the admin API, several with commas",
  default: new Set<string>(),
  parse: parseHosts
})

const trustedProxies = Setting.make({
  env: "ADMIN_TRUSTED_PROXIES",
  flag: "admin-trusted-proxies",
  description: "Addresses and networks of proxies whose X-Forwarded-For is believed, several with commas",
  parse: (text) =>
    Either.mapLeft(
      Addresses.parseList(text),
      (entry) => `got ${quote(entry)}, valid is an address or a network (10.0.0.0/8), several with commas between them`
    )
})

const file = (env: string, flag: string, description: string) =>
  Setting.make({ env, flag, description, parse: Setting.text })

const tlsCertFile = file(
  "ADMIN_TLS_CERT_FILE",
  "admin-tls-cert-file",
  "The certificate of the admin API, as PEM; with it the API speaks TLS"
)

const tlsKeyFile = file("ADMIN_TLS_KEY_FILE", "admin-tls-key-file", "The key of the certificate, as PEM")

const tlsClientCaFile = file(
  "ADMIN_TLS_CLIENT_CA_FILE",
  "admin-tls-client-ca-file",
  "The authority, as PEM, whose certificate every client of the admin API has to show"
)

/**
 * Where a service listens if nothing else is set.
 *
 * @since 0.1.0
 * @category reading
 */
export const defaultUrl = `http://127.0.0.1:${defaultPort}`

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
  default: undefined,
  defaultText: "the running service of this directory and database",
  parse: parseUrl
})

/**
 * The settings of a service.
 *
 * @since 0.1.0
 * @category declarations
 */
export const serverGroup: Setting.Group = {
  title: "Admin API and dashboard",
  settings: [host, port, token, tokensFile, allowedHosts, trustedProxies, tlsCertFile, tlsKeyFile, tlsClientCaFile]
}

/**
 * The settings of a command that calls a service.
 *
 * @since 0.1.0
 * @category declarations
 */
export const clientGroup: Setting.Group = { title: "Admin API client", settings: [url, token] }

/** The text of a file that a setting names. */
const textOf = (setting: Setting.Setting<string>): Effect.Effect<string | undefined, Setting.InvalidSetting> =>
  Effect.flatMap(Setting.read(setting), (path) =>
    path === undefined
      ? Effect.succeed(undefined)
      : Effect.tryPromise({
          try: () => RegularFile.readSetting(path),
          catch: (cause) => Setting.invalid(setting, `cannot read ${quote(path)}: ${messageOf(cause)}`)
        })
  )

const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

const tls: Effect.Effect<Tls | undefined, Setting.InvalidSetting> = Effect.gen(function* () {
  const cert = yield* textOf(tlsCertFile)
  const key = yield* textOf(tlsKeyFile)
  const clientCa = yield* textOf(tlsClientCaFile)
  if (cert === undefined && key === undefined && clientCa === undefined) return undefined
  if (cert === undefined || key === undefined) {
    const missing = cert === undefined ? tlsCertFile : tlsKeyFile
    const given = cert !== undefined ? tlsCertFile : key !== undefined ? tlsKeyFile : tlsClientCaFile
    return yield* Setting.invalid(missing, `is missing, while ${given.env} is set`)
  }
  const usable = (setting: Setting.Any, options: SecureContextOptions) =>
    Effect.try({
      try: () => createSecureContext(options),
      catch: (cause) => Setting.invalid(setting, `cannot be used: ${messageOf(cause)}`)
    })
  yield* usable(tlsCertFile, { cert })
  yield* usable(tlsKeyFile, { cert, key })
  if (clientCa !== undefined) yield* usable(tlsClientCaFile, { ca: clientCa })
  return { cert, key, clientCa }
})

/**
 * Reads where the admin API listens. Answers `undefined` if it is off.
 *
 * @since 0.1.0
 * @category reading
 */
export const server: Effect.Effect<Listening | undefined, Setting.InvalidSetting> = Effect.gen(function* () {
  const given = {
    port: yield* Setting.read(port),
    host: yield* Setting.read(host),
    token: yield* Setting.read(token)
  }
  if (given.port === "off") return undefined
  const path = yield* Setting.read(tokensFile)
  const tokens =
    path === undefined
      ? undefined
      : yield* Effect.mapError(Tokens.fromFile(path), (reason) =>
          Setting.invalid(tokensFile, `${quote(path)}: ${reason}`)
        )
  if (given.token === undefined && tokens === undefined && !isLoopback(given.host)) {
    return yield* Setting.invalid(
      token,
      `is missing, while ${host.env} is ${quote(given.host)}: others than this machine could change the outbox`
    )
  }
  return {
    host: given.host,
    port: given.port ?? defaultPort,
    orFree: given.port === undefined,
    token: given.token,
    tokens,
    allowedHosts: yield* Setting.read(allowedHosts),
    isProxy: yield* Setting.read(trustedProxies),
    tls: yield* tls
  }
})

/**
 * Reads which service a command talks to.
 *
 * @since 0.1.0
 * @category reading
 */
export const client: Effect.Effect<Client, Setting.InvalidSetting> = Effect.all({
  url: Setting.read(url),
  token: Setting.read(token)
})
