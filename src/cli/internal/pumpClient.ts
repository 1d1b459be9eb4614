/** Talks to the pump of a running service. */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as HttpApiClient from "@effect/platform/HttpApiClient"
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import type { OutboxIdentity } from "../../OutboxAdmin.js"
import type { PumpStatus } from "../../PumpStatus.js"
import { AdminApi } from "../../admin/AdminApi.js"
import { failure, type CliError } from "./CliError.js"
import { messageOf } from "./text.js"

/** A pause waits for the publishes in flight. */
const patience = Duration.seconds(45)

export interface Service {
  readonly url: string
  readonly token: Redacted.Redacted | undefined
}

const clientOf = ({ token, url }: Service) =>
  HttpApiClient.make(AdminApi, {
    baseUrl: url,
    transformClient: (client) =>
      token === undefined ? client : HttpClient.mapRequest(client, HttpClientRequest.bearerToken(token))
  })

type Client = Effect.Effect.Success<ReturnType<typeof clientOf>>

/** The errors of the requests here. */
type Refusal = Effect.Effect.Error<ReturnType<Client["pump"]["pause"]>>

const ask = <A>(
  service: Service,
  question: (client: Client) => Effect.Effect<A, Refusal>
): Effect.Effect<A, CliError> => {
  const { token, url } = service
  return clientOf(service).pipe(
    Effect.flatMap(question),
    Effect.timeoutFail({
      duration: patience,
      onTimeout: () => failure(`${url} did not answer within ${Duration.format(patience)}`)
    }),
    Effect.catchTags({
      RequestError: (error) =>
        failure(`No service answers at ${url} (${reasonOf(error)}): start serve, or set ADMIN_URL`, error),
      ResponseError: (error) =>
        failure(`${url} is not an admin API: it answered status ${error.response.status}`, error),
      ParseError: (error) => failure(`${url} is not an admin API of this version`, error),
      HttpApiDecodeError: (error) => failure(error.message, error),
      BadRequest: (error) => failure(error.message, error),
      Forbidden: (error) => failure(error.message, error),
      Unauthorized: (error) =>
        failure(token === undefined ? "The service requires a token: set ADMIN_TOKEN" : error.message, error),
      TooManyRequests: (error) => failure(error.message, error),
      Unavailable: (error) => failure(error.message, error)
    }),
    Effect.provide(FetchHttpClient.layer)
  )
}

/** Pauses or resumes the pump of a service. */
export const tell = (
  service: Service,
  action: "pause" | "resume",
  reason: string
): Effect.Effect<PumpStatus, CliError> => ask(service, (client) => client.pump[action]({ payload: { reason } }))

/** Reads which outbox a service publishes from. */
export const identity = (service: Service): Effect.Effect<OutboxIdentity, CliError> =>
  ask(service, (client) => client.outbox.identity())

/** The reason is the cause of the error of `fetch`. */
const reasonOf = (error: unknown): string =>
  error instanceof Error && error.cause instanceof Error ? reasonOf(error.cause) : messageOf(error)
