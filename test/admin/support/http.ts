/** Requests as they are on the wire, with headers that `fetch` keeps to itself. */
import { Effect, type Scope } from "effect"
import * as Http from "node:http"

export interface Request {
  readonly method?: string
  readonly path: string
  readonly headers?: Http.OutgoingHttpHeaders
  /** Sent as JSON, a string as it is. */
  readonly body?: unknown
}

export interface Response {
  readonly status: number
  readonly headers: Http.IncomingHttpHeaders
  readonly text: string
  /** Undefined where the body is none. */
  readonly json: Readonly<Record<string, unknown>>
}

const parse = (text: string) => {
  try {
    return JSON.parse(text) as Record<string, unknown>
  } catch {
    return {}
  }
}

export const json = { "content-type": "application/json" }

/** Sends a request to this machine. A body is a POST of JSON. */
export const send = (
  port: number,
  { body, headers = {}, method = body === undefined ? "GET" : "POST", path }: Request
): Effect.Effect<Response> =>
  Effect.promise(
    (signal) =>
      new Promise<Response>((resolve, reject) => {
        const request = Http.request(
          {
            host: "127.0.0.1",
            port,
            path,
            method,
            signal,
            agent: false,
            headers: { ...(body === undefined ? {} : json), ...headers }
          },
          (response) => {
            let text = ""
            response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk))
            response.on("end", () =>
              resolve({ status: response.statusCode ?? 0, headers: response.headers, text, json: parse(text) })
            )
            response.on("error", reject)
          }
        )
        request.on("error", reject)
        request.end(body === undefined ? undefined : typeof body === "string" ? body : JSON.stringify(body))
      })
  )

export interface Stream {
  readonly status: number
  /** What came so far. */
  readonly text: () => string
  /** Completes when the server has ended it; `true` if cleanly. */
  readonly end: Effect.Effect<boolean>
  readonly pause: () => void
  readonly resume: () => void
}

/** Opens a response that does not end. It is given up with the scope. */
export const open = (
  port: number,
  path: string,
  headers: Http.OutgoingHttpHeaders = {}
): Effect.Effect<Stream, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(
        () =>
          new Promise<Http.IncomingMessage>((resolve, reject) => {
            Http.get({ host: "127.0.0.1", port, path, headers, agent: false }, resolve).on("error", reject)
          })
      ),
      (response) => Effect.sync(() => response.destroy())
    ),
    (response) => {
      let text = ""
      response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk))
      const end = new Promise<boolean>((resolve) => {
        response.on("end", () => resolve(true))
        response.on("error", () => resolve(false))
        response.on("close", () => resolve(false))
      })
      return {
        status: response.statusCode ?? 0,
        text: () => text,
        end: Effect.promise(() => end),
        pause: () => void response.pause(),
        resume: () => void response.resume()
      }
    }
  )
