/** Who may ask: the implementation of the API's `Access`. */
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { createHash, timingSafeEqual } from "node:crypto"
import { Access, Unauthorized } from "../AdminApi.js"

export interface Options {
  /** Whether only this machine can reach the API. */
  readonly loopback: boolean
  readonly token: Redacted.Redacted | undefined
}

const digest = (text: Redacted.Redacted): Buffer => createHash("sha256").update(Redacted.value(text)).digest()

/** Takes as long whatever is given. */
const isToken = (token: Redacted.Redacted): ((given: Redacted.Redacted) => boolean) => {
  const wanted = digest(token)
  return (given) => timingSafeEqual(wanted, digest(given))
}

const reads: ReadonlySet<string> = new Set(["GET", "HEAD"])

const address = (request: HttpServerRequest.HttpServerRequest): string =>
  Option.getOrElse(request.remoteAddress, () => "an unknown address")

/** Without a token anybody on this machine may do everything; with one, writes need it, and beyond this machine reads. */
export const layer = ({ loopback, token }: Options): Layer.Layer<Access> => {
  const matches = token === undefined ? undefined : isToken(token)
  return Layer.succeed(Access, {
    token: (given) =>
      Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => {
        const from = address(request)
        if (matches === undefined) return Effect.succeed(from)
        if (matches(given)) return Effect.succeed(`the holder of the token, from ${from}`)
        if (loopback && reads.has(request.method)) return Effect.succeed(from)
        return new Unauthorized({
          message:
            Redacted.value(given) === ""
              ? "The token is missing: send the header Authorization: Bearer <ADMIN_TOKEN>"
              : "The token is wrong"
        })
      })
  })
}
