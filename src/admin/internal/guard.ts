/** Checks every request before it is routed, and adds the security headers to every answer. */
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import * as Hosts from "./hosts.js"
import { failed } from "./answers.js"

/** The largest body, in bytes. */
export const maxBody = 64 * 1024

/**
 * Whether a path is in its only accepted spelling. The router accepts others, and a proxy in front of the service may
 * have a rule for one spelling only.
 */
const isPlain = (path: string): boolean =>
  /^\/([\w.-]+(\/[\w.-]+)*)?$/.test(path) ||
  /^\/api\/events\/[^/;#\\]+(\/(payload|redrive|park|discard|erase))?$/.test(path)

/** A key that JavaScript objects do not keep, so that a strict filter does not see it. */
const hidden = "__proto__"

const pathOf = (url: string): string => url.split("?", 1)[0]!

const isRead = (method: string): boolean => method === "GET" || method === "HEAD"

/** The refusal of a request, if any, before it is routed. */
const refusal = (
  { headers, method, url }: HttpServerRequest.HttpServerRequest,
  hosts: Hosts.Options
): HttpServerResponse.HttpServerResponse | undefined => {
  const host = headers.host ?? ""
  if (!Hosts.isOurs(host, hosts)) {
    const valid = hosts.loopback ? "use localhost or 127.0.0.1, or add it to" : "add it to"
    const name = JSON.stringify(host.slice(0, 300))
    return failed(403, "Forbidden", `The host ${name} is not one of this service: ${valid} ADMIN_ALLOWED_HOSTS`)
  }
  const path = pathOf(url)
  if (!isPlain(path)) {
    return failed(404, "NotFound", `There is no ${method} ${path.slice(0, 300)}: see /docs`)
  }
  if (new URLSearchParams(url.slice(path.length)).has(hidden)) {
    return HttpServerResponse.unsafeJson(
      { _tag: "BadRequest", field: hidden, message: `${hidden}: is unexpected` },
      { status: 400 }
    )
  }
  // Links from other sites may lead here; their pages may not send requests.
  const site = headers["sec-fetch-site"]
  const isLink = isRead(method) && headers["sec-fetch-mode"] === "navigate"
  const isForeign =
    (site !== undefined && site !== "same-origin" && site !== "none" && !isLink) ||
    (headers.origin !== undefined && !Hosts.isOurOrigin(headers.origin, host, hosts))
  if (isForeign) return failed(403, "Forbidden", "The request comes from the page of another site")
  if (isRead(method)) return undefined
  if (!/^application\/json\s*(;|$)/i.test(headers["content-type"] ?? "")) {
    return failed(
      415,
      "UnsupportedMediaType",
      "The body has to be JSON: send the header content-type: application/json"
    )
  }
  return Number(headers["content-length"] ?? 0) > maxBody
    ? HttpServerResponse.setHeader(
        failed(413, "TooLarge", `The body is larger than ${maxBody} bytes`),
        // Otherwise the rest of the body would be read.
        "connection",
        "close"
      )
    : undefined
}

/** Pages load nothing from other origins and cannot be framed. */
const policy = (sources: string) =>
  `default-src 'none'; ${sources}; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`

const pagePolicy = policy("script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'")

/** The /docs page is a single file with inline scripts and styles. */
const docsPolicy = policy("script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:")

const withHeaders = (path: string) => (response: HttpServerResponse.HttpServerResponse) =>
  HttpServerResponse.setHeaders(response, {
    "content-security-policy": path === "/docs" ? docsPolicy : pagePolicy,
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    ...(response.status === 401 ? { "www-authenticate": "Bearer" } : {}),
    ...response.headers
  })

export const guard = <E, R>(hosts: Hosts.Options, app: HttpApp.Default<E, R>): HttpApp.Default<E, R> =>
  Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => {
    const refused = refusal(request, hosts)
    return Effect.map(refused === undefined ? app : Effect.succeed(refused), withHeaders(pathOf(request.url)))
  })
