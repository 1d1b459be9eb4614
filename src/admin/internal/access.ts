/** Implements the API's `Access` with tokens. */
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { IncomingMessage } from "node:http"
import { Access, Forbidden, Unauthorized } from "../AdminApi.js"
import * as Tokens from "../Tokens.js"
import * as Addresses from "./addresses.js"
import * as Refusals from "./refusals.js"

export interface Options {
  /** If absent, every local client may do everything. */
  readonly tokens: Tokens.Tokens | undefined
  readonly isProxy: Addresses.Matches
}

const reads: ReadonlySet<string> = new Set(["GET", "HEAD"])

/** The client's address, and the text that the audit log has for it. */
const placeOf = ({ headers, remoteAddress }: HttpServerRequest.HttpServerRequest, isProxy: Addresses.Matches) => {
  const peer = Option.getOrUndefined(remoteAddress)
  const client = Addresses.clientOf(peer, headers["x-forwarded-for"], isProxy) ?? "an unknown address"
  return { client, place: client === peer || peer === undefined ? client : `${client} through ${peer}` }
}

const isIncoming = (source: unknown): source is IncomingMessage =>
  typeof source === "object" && source !== null && "httpVersion" in source

const forwarding = ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"]

/**
 * Whether a proxy forwarded the request: the client may then be anywhere, although the connection is local. Most proxies
 * add a header; nginx by default shows only in that it speaks HTTP/1.0.
 */
const isForwarded = ({ headers, source }: HttpServerRequest.HttpServerRequest): boolean =>
  forwarding.some((name) => headers[name] !== undefined) || (isIncoming(source) && source.httpVersion === "1.0")

/** The scheme is case-insensitive (RFC 9110). */
const bearer = /^bearer +([\x21-\x7e]+) *$/i

/** With tokens, every request needs one, local ones too. Without, every local client may do everything. */
export const layer = ({ isProxy, tokens }: Options): Layer.Layer<Access> =>
  Layer.scoped(
    Access,
    Effect.map(Refusals.make, (refusals) => ({
      // The platform accepts any six letters as the scheme.
      token: () =>
        Effect.gen(function* () {
          const request = yield* HttpServerRequest.HttpServerRequest
          const { client, place } = placeOf(request, isProxy)
          if (tokens === undefined) {
            if (!isForwarded(request)) return place
            return yield* new Forbidden({
              message: "The request came through a proxy, and the service has no token: set ADMIN_TOKEN"
            })
          }
          const token = bearer.exec(request.headers.authorization ?? "")?.[1]
          if (token === undefined) {
            yield* refusals.count("missing")
            return yield* new Unauthorized({
              message: "The token is missing: send the header Authorization: Bearer <ADMIN_TOKEN>"
            })
          }
          yield* refusals.pass(client)
          const entry = Tokens.find(yield* tokens, token)
          if (entry === undefined) {
            yield* refusals.wrong(client)
            return yield* new Unauthorized({ message: "The token is wrong" })
          }
          if (entry.role === "read" && !reads.has(request.method)) {
            yield* refusals.count("role")
            return yield* new Forbidden({ message: `The token of ${entry.holder} may only read` })
          }
          return `${entry.holder}, from ${place}`
        })
    }))
  )
