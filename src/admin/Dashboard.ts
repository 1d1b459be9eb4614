/**
 * Serves the dashboard, a page over the admin API. Its source is in `dashboard/`; the build bundles it.
 *
 * @since 0.1.0
 */
import * as HttpApiBuilder from "@effect/platform/HttpApiBuilder"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import { createHash } from "node:crypto"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const files = [
  { path: "/", name: "index.html", contentType: "text/html; charset=utf-8" },
  { path: "/dashboard/main.js", name: "main.js", contentType: "text/javascript; charset=utf-8" },
  { path: "/dashboard/main.css", name: "main.css", contentType: "text/css; charset=utf-8" },
  { path: "/dashboard/icon.svg", name: "icon.svg", contentType: "image/svg+xml" }
] as const

/** Browsers revalidate on each load, so that a new version of the service shows its own page. */
const cacheControl = "no-cache"

const answer = (body: Uint8Array, contentType: string) => {
  const etag = `"${createHash("sha256").update(body).digest("base64url").slice(0, 22)}"`
  const headers = { etag, "cache-control": cacheControl }
  const whole = HttpServerResponse.uint8Array(body, { contentType, headers })
  const unchanged = HttpServerResponse.empty({ status: 304, headers })
  return Effect.map(HttpServerRequest.HttpServerRequest, ({ headers }) =>
    headers["if-none-match"] === etag ? unchanged : whole
  )
}

/** Where the build puts the page: beside this module. */
const built = fileURLToPath(new URL("dashboard", import.meta.url))

const notBuilt = HttpServerResponse.text("There is no dashboard in this build; npm run build makes one.", {
  status: 404
})

/**
 * Serves the page at `/` and its files below `/dashboard`. The files hold no data and are read once. A service without
 * them works all the same.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = ({ directory = built }: { readonly directory?: string | undefined } = {}): Layer.Layer<never> =>
  HttpApiBuilder.Router.use((router) =>
    Effect.forEach(
      files,
      ({ contentType, name, path }) =>
        Effect.tryPromise(() => readFile(join(directory, name))).pipe(
          Effect.match({ onSuccess: (body) => answer(body, contentType), onFailure: () => Effect.succeed(notBuilt) }),
          Effect.flatMap((answer) => router.get(path, answer))
        ),
      { discard: true }
    )
  )
