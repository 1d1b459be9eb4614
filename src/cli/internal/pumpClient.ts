/** Talks to the pump of a running service. */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as HttpApiClient from "@effect/platform/HttpApiClient"
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import type { PumpStatus } from "../../PumpStatus.js"
import { AdminApi } from "../../admin/AdminApi.js"
import { failure, type CliError } from "./CliError.js"
import { messageOf } from "./text.js"

/** A pause waits for the publishes in flight. */
const patience = Duration.seconds(45)

interface Service {
  readonly url: string
  readonly token: Redacted.Redacted | undefined
}

export const tell = (
  { token, url }: Service,
  action: "pause" | "resume",
  reason: string
): Effect.Effect<PumpStatus, CliError> =>
  HttpApiClient.make(AdminApi, {
    baseUrl: url,
    transformClient: (client) =>
      token === undefined ? client : HttpClient.mapRequest(client, HttpClientRequest.bearerToken(token))
  }).pipe(
    Effect.flatMap((client) => client.pump[action]({ payload: { reason } })),
    Effect.timeoutFail({
      duration: patience,
      onTimeout: () => failure(`${url} did not answer within ${Duration.format(patience)}`)
    }),
    Effect.catchTags({
      RequestError: (error) =>
        failure(`No service answers at ${url} (${reasonOf(error)}): start serve, or set ADMIN_URL`, error),
      ResponseError: (error) =>
        failure(`What answers at ${url} is no admin API: status ${error.response.status}`, error),
      ParseError: (error) => failure(`What answers at ${url} is no admin API of this version`, error),
      HttpApiDecodeError: (error) => failure(error.message, error),
      BadRequest: (error) => failure(error.message, error),
      Forbidden: (error) => failure(error.message, error),
      Unauthorized: (error) =>
        failure(token === undefined ? "The service asks for its token: set ADMIN_TOKEN" : error.message, error),
      TooManyRequests: (error) => failure(error.message, error),
      Unavailable: (error) => failure(error.message, error)
    }),
    Effect.provide(FetchHttpClient.layer)
  )

/** What is wrong lies below what `fetch` says. */
const reasonOf = (error: unknown): string =>
  error instanceof Error && error.cause instanceof Error ? reasonOf(error.cause) : messageOf(error)
