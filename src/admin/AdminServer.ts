/**
 * The server of the admin API.
 *
 * @since 0.1.0
 */
import * as HttpMiddleware from "@effect/platform/HttpMiddleware"
import * as HttpServer from "@effect/platform/HttpServer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type { OutboxAdmin } from "../OutboxAdmin.js"
import type { Pump } from "../Pump.js"
import type { Retention } from "../Retention.js"
import type { Sink } from "../Sink.js"
import * as AdminApp from "./AdminApp.js"
import { isLoopback } from "./internal/loopback.js"
import { codeOf } from "../internal/errorCode.js"
import * as Access from "./internal/access.js"
import * as Listener from "./internal/listener.js"
import * as Tokens from "./Tokens.js"

/**
 * Options of the admin API's own HTTP server.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The address to listen on. */
  readonly host: string
  /** 0 for any free port. */
  readonly port: number
  /** Whether to listen on a free port if this one is taken. */
  readonly orFree: boolean
  /** If set, every request to the API needs a token. */
  readonly token: Redacted.Redacted | undefined
  /** More tokens, with names and roles. */
  readonly tokens?: Tokens.Tokens | undefined
  /** Host names that the service answers besides those of this machine. If set, it answers no other names. */
  readonly allowedHosts?: ReadonlySet<string> | undefined
  /** The proxies whose `X-Forwarded-For` is trusted. */
  readonly isProxy?: ((address: string | undefined) => boolean) | undefined
  /** If set, the service speaks TLS. */
  readonly tls?: Tls | undefined
  /** The directory of the dashboard's files. Default: where the build puts them. */
  readonly dashboard?: string
}

/**
 * A certificate and its key, as PEM texts.
 *
 * @since 0.1.0
 * @category models
 */
export type Tls = Listener.Tls

/**
 * The server cannot listen on the address.
 *
 * @since 0.1.0
 * @category errors
 */
export class CannotListen extends Schema.TaggedError<CannotListen>("controlpublish/admin/CannotListen")(
  "CannotListen",
  {
    message: Schema.String,
    cause: Schema.Defect
  }
) {}

const nobody = () => false

const why: Readonly<Record<string, string>> = {
  EADDRINUSE: "another process listens there",
  EADDRNOTAVAIL: "this machine has no such address",
  EACCES: "that needs more rights than this process has",
  ENOTFOUND: "no address is known by that name"
}

/**
 * Listens until the layer's scope closes. Until {@link layer} serves the API, it answers 503 and says that the service
 * is starting; the live probe is answered. Closing waits at most two seconds for requests in flight.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerServer = ({
  host,
  isProxy = nobody,
  orFree,
  port,
  tls
}: Options): Layer.Layer<HttpServer.HttpServer, CannotListen> => {
  const listen = (port: number) => Listener.listen({ host, port, tls, isProxy })
  return Layer.scoped(
    HttpServer.HttpServer,
    listen(port).pipe(
      Effect.catchIf(
        ({ cause }) => orFree && codeOf(cause) === "EADDRINUSE",
        () => listen(0)
      ),
      Effect.mapError(({ cause }) => {
        const code = codeOf(cause) ?? ""
        const reason = why[code] ?? (cause instanceof Error ? cause.message : String(cause))
        return new CannotListen({
          message: `ADMIN_HOST, ADMIN_PORT: cannot listen on ${host}, port ${port}: ${reason}`,
          cause
        })
      })
    )
  )
}

/**
 * The URL of the server.
 *
 * @since 0.1.0
 * @category accessors
 */
export const urlOf = ({ address }: HttpServer.HttpServer, { tls }: Pick<Options, "tls"> = {}): string => {
  if (address._tag === "UnixAddress") return address.path
  const { hostname, port } = address
  return `${tls === undefined ? "http" : "https"}://${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`
}

const allTokens = (
  token: Redacted.Redacted | undefined,
  tokens: Tokens.Tokens | undefined
): Tokens.Tokens | undefined => {
  if (token === undefined) return tokens
  const single = Tokens.single(token)
  return Effect.map(tokens ?? Effect.succeed([]), (entries) => [single, ...entries])
}

/**
 * Serves the API, the dashboard, health and metrics until the layer's scope closes.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = ({
  allowedHosts = new Set(),
  dashboard,
  host,
  isProxy = nobody,
  token,
  tokens
}: Options): Layer.Layer<never, never, HttpServer.HttpServer | OutboxAdmin | Pump | Retention | Sink> => {
  const hosts = { loopback: isLoopback(host), allowed: allowedHosts }
  return Layer.unwrapScoped(
    Effect.map(AdminApp.make({ dashboard, hosts, isProxy }), (app) => HttpServer.serve(app))
  ).pipe(
    Layer.provide(Access.layer({ tokens: allTokens(token, tokens), isProxy })),
    // Reads would fill the traces.
    HttpMiddleware.withTracerDisabledWhen(({ method }) => method === "GET")
  )
}
