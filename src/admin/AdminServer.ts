/**
 * The server of the admin API.
 *
 * @since 1.0.0
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
 * @since 1.0.0
 * @category models
 */
export interface Options {
  /** The address to listen on. */
  readonly host: string
  /** 0: any that is free. */
  readonly port: number
  /** Whether a port that is taken is replaced by one that is free. */
  readonly orFree: boolean
  /** Once there is a token, every request for the API needs one. */
  readonly token: Redacted.Redacted | undefined
  /** More tokens, with names and roles. */
  readonly tokens?: Tokens.Tokens | undefined
  /** Names by which the service may be asked for, beside those of this machine. With them, beyond it no others are answered. */
  readonly allowedHosts?: ReadonlySet<string> | undefined
  /** Proxies, whose `X-Forwarded-For` is believed. */
  readonly isProxy?: ((address: string | undefined) => boolean) | undefined
  /** The service speaks TLS with these. */
  readonly tls?: Tls | undefined
  /** Where the files of the dashboard are, if not where the build puts them. */
  readonly dashboard?: string
}

/**
 * A certificate and its key, as PEM texts.
 *
 * @since 1.0.0
 * @category models
 */
export type Tls = Listener.Tls

/**
 * The address cannot be listened on.
 *
 * @since 1.0.0
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
 * Listens, for as long as the layer. Until something is served, every request is told that the service is starting; the
 * live probe is answered. Its end waits for requests in flight, two seconds at most.
 *
 * @since 1.0.0
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
 * Where the server is found.
 *
 * @since 1.0.0
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
 * Answers requests for as long as the layer.
 *
 * @since 1.0.0
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
    // Those who only look would fill the traces.
    HttpMiddleware.withTracerDisabledWhen(({ method }) => method === "GET")
  )
}
