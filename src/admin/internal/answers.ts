/** Answers to requests that went wrong, all of them JSON. */
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

/** The first field that cannot be; the body where it is the whole of it. */
const toBadRequest = ({ issues }: HttpApiError.HttpApiDecodeError): BadRequest => {
  const issue = issues[0]
  const field = issue === undefined || issue.path.length === 0 ? "body" : issue.path.map(String).join(".")
  return new BadRequest({ field, message: `${field}: ${issue?.message ?? "cannot be"}` })
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
  // The errors of the API, and requests that nobody waits for any more.
  if (Option.isSome(Cause.failureOption(cause)) || Cause.isInterrupted(cause)) return Effect.failCause(cause)
  return Effect.as(
    Effect.logError("A request to the admin API died", cause),
    failed(500, "InternalError", "The service has logged what went wrong")
  )
}

/** Says in the API's own errors what went wrong before its handlers were reached, or inside of them. */
export const explained = (app: HttpApp.Default): HttpApp.Default =>
  // What the router can fail with is in no type.
  Effect.catchAllCause(app as HttpApp.Default<unknown>, explain) as HttpApp.Default
