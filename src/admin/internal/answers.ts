/** Error answers, all of them JSON. */
import * as HttpApiError from "@effect/platform/HttpApiError"
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpServerError from "@effect/platform/HttpServerError"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { BadRequest, NotFound } from "../AdminApi.js"

/** An answer in the shape of the API's errors. */
export const failed = (status: number, tag: string, message: string): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.unsafeJson({ _tag: tag, message }, { status })

/** Names the first invalid field, or the body as a whole. */
const toBadRequest = ({ issues }: HttpApiError.HttpApiDecodeError): BadRequest => {
  const issue = issues[0]
  const field = issue === undefined || issue.path.length === 0 ? "body" : issue.path.map(String).join(".")
  return new BadRequest({ field, message: `${field}: ${issue?.message ?? "is invalid"}` })
}

const isTooLarge = (cause: unknown): boolean => cause instanceof Error && cause.message === "maxBytes exceeded"

const explain = (
  cause: Cause.Cause<unknown>
): Effect.Effect<HttpServerResponse.HttpServerResponse, unknown, HttpServerRequest.HttpServerRequest> => {
  const error = Cause.squash(cause)
  if (error instanceof HttpApiError.HttpApiDecodeError) return Effect.fail(toBadRequest(error))
  if (error instanceof HttpServerError.RouteNotFound) {
    return Effect.map(HttpServerRequest.HttpServerRequest, ({ method, url }) =>
      failed(404, NotFound._tag, `There is no ${method} ${url.split("?")[0]}: see /docs`)
    )
  }
  if (error instanceof HttpServerError.RequestError) {
    return isTooLarge(error.cause)
      ? Effect.succeed(failed(413, "TooLarge", "The body is too large"))
      : Effect.fail(new BadRequest({ field: "body", message: "body: it cannot be read as JSON" }))
  }
  // The API's own errors, and requests whose client has left.
  if (Option.isSome(Cause.failureOption(cause)) || Cause.isInterrupted(cause)) return Effect.failCause(cause)
  return Effect.as(
    Effect.logError("A request to the admin API died", cause),
    failed(500, "InternalError", "The service has logged what went wrong")
  )
}

/** Turns failures before and inside the handlers into the API's errors. */
export const explained = (app: HttpApp.Default): HttpApp.Default =>
  // The router's failures are in no type.
  Effect.catchAllCause(app as HttpApp.Default<unknown>, explain) as HttpApp.Default
