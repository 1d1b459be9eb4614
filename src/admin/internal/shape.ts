/** The implementation of the API's `Shape`. */
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { BadRequest, Shape } from "../AdminApi.js"

/** No valid body has more than three levels. */
const maxDepth = 32

/** Whether JSON is nested more deeply than `max`. The parser rejects invalid JSON. */
export const isDeeper = (text: string, max: number): boolean => {
  let depth = 0
  let inString = false
  for (let at = 0; at < text.length; at++) {
    const character = text[at]
    if (inString) {
      if (character === "\\") at++
      else if (character === '"') inString = false
    } else if (character === '"') inString = true
    else if (character === "{" || character === "[") {
      if (++depth > max) return true
    } else if (character === "}" || character === "]") depth--
  }
  return false
}

export const layer: Layer.Layer<Shape> = Layer.succeed(
  Shape,
  Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) =>
    request.method === "GET" || request.method === "HEAD"
      ? Effect.void
      : // The handler fails on a body that cannot be read.
        Effect.flatMap(
          Effect.orElseSucceed(request.text, () => ""),
          (text) =>
            isDeeper(text, maxDepth)
              ? new BadRequest({ field: "body", message: `body: it is nested more than ${maxDepth} levels deep` })
              : Effect.void
        )
  )
)
