/** The listening socket of the admin server, hardened against clients that exhaust it or crash the process. */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as HttpServer from "@effect/platform/HttpServer"
import { ServeError } from "@effect/platform/HttpServerError"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Http from "node:http"
import * as Https from "node:https"
import type { Duplex } from "node:stream"
import * as Connections from "./connections.js"

/** PEM texts. */
export interface Tls {
  readonly cert: string
  readonly key: string
  /** If set, clients need a certificate of this authority. */
  readonly clientCa: string | undefined
}

export interface Options {
  readonly host: string
  readonly port: number
  readonly tls: Tls | undefined
  /** Whether an address is a proxy that forwards many clients. */
  readonly isProxy: (address: string | undefined) => boolean
}

const limits: Connections.Limits = { total: 256, ofAddress: 128, reserve: 32, pipelined: 16 }

/** Milliseconds. */
const times = {
  /** For the headers of a request; for the first one, from the connection on. */
  headers: 5_000,
  /** For the whole request. */
  request: 15_000,
  /** Between two requests. */
  keepAlive: 5_000,
  /** Between two checks of these limits. */
  checks: 1_000,
  /** Without a byte in either direction. A write takes at most 30 seconds. */
  silence: 45_000,
  /** At a stop, for requests that are being received. */
  arrival: 200,
  /** At a stop, for requests in flight. */
  grace: 2_000
}

const answers = {
  starting: [503, { _tag: "Unavailable", message: "The service is starting" }],
  stopping: [503, { _tag: "Unavailable", message: "The service is stopping" }],
  busy: [503, { _tag: "Unavailable", message: "The service has too many connections: try again" }],
  pipelined: [
    429,
    { _tag: "TooManyRequests", message: `More than ${limits.pipelined} requests wait on one connection` }
  ],
  connect: [405, { _tag: "MethodNotAllowed", message: "The service is no proxy: it has no CONNECT" }]
} as const

type Answer = (typeof answers)[keyof typeof answers]

const headers = {
  "content-type": "application/json",
  "cache-control": "no-store",
  "x-content-type-options": "nosniff",
  connection: "close"
}

const end = (response: Http.ServerResponse, [status, body]: Answer): void => {
  response
    .writeHead(status, { ...headers, ...(status === 503 || status === 429 ? { "retry-after": "1" } : {}) })
    .end(JSON.stringify(body))
}

/** The live probe passes during the start: a slow start is no reason to kill the process. */
const before = (request: Http.IncomingMessage, response: Http.ServerResponse, answer: Answer): void => {
  if (request.url === "/health/live") response.writeHead(200, headers).end(`{"live":true}`)
  else end(response, answer)
}

/** Answers 405 to CONNECT. Node leaves the socket for us to close. */
const refuseConnect = (socket: Duplex): void => {
  const [status, body] = answers.connect
  const text = JSON.stringify(body)
  socket.on("error", () => {})
  socket.end(
    [
      `HTTP/1.1 ${status} ${Http.STATUS_CODES[status]}`,
      ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
      `content-length: ${Buffer.byteLength(text)}`,
      "",
      text
    ].join("\r\n"),
    () => socket.destroy()
  )
}

const makeServer = (tls: Tls | undefined): Http.Server => {
  const options = {
    headersTimeout: times.headers,
    requestTimeout: times.request,
    keepAliveTimeout: times.keepAlive,
    connectionsCheckingInterval: times.checks
  }
  if (tls === undefined) return Http.createServer(options)
  const { cert, clientCa, key } = tls
  const server = Https.createServer({
    ...options,
    cert,
    key,
    minVersion: "TLSv1.2",
    handshakeTimeout: times.headers,
    ...(clientCa === undefined ? {} : { ca: clientCa, requestCert: true, rejectUnauthorized: true })
  })
  server.on("secureConnection", (socket) => socket.on("error", () => {}))
  server.on("tlsClientError", (_, socket) => socket.destroy())
  return server
}

type Handler = (request: Http.IncomingMessage, response: Http.ServerResponse) => void

/**
 * Listens until the scope closes, and answers from the first connection on. While no handler is attached, it says that the
 * service is starting or stopping. Closing waits for requests in flight.
 *
 * There is no `upgrade` listener: Node then reads such a request like any other and keeps the socket. With a listener,
 * Node would hand over the socket without an error handler.
 */
export const listen = ({
  host,
  isProxy,
  port,
  tls
}: Options): Effect.Effect<HttpServer.HttpServer, ServeError, Scope.Scope> =>
  Effect.gen(function* () {
    const server = makeServer(tls)
    const connections = Connections.make(limits, isProxy)
    let handler: Handler | undefined
    let idle: Answer = answers.starting

    server.setTimeout(times.silence)
    server.on("connection", connections.accept)
    server.on("connect", (_, socket) => refuseConnect(socket))
    server.on("request", (request, response) => {
      response.on("error", () => {})
      const refused = connections.begin(request, response)
      if (refused !== undefined) end(response, answers[refused])
      else if (handler !== undefined) handler(request, response)
      else before(request, response, idle)
    })

    yield* Effect.acquireRelease(
      Effect.async<void, ServeError>((resume) => {
        const fail = (cause: Error) => resume(Effect.fail(new ServeError({ cause })))
        server.once("error", fail)
        server.listen({ host, port }, () => {
          server.off("error", fail)
          // A connection that cannot be accepted must not end the service.
          server.on("error", () => {})
          resume(Effect.void)
        })
      }),
      () =>
        Effect.async<void>((resume) => {
          const timers = [
            setTimeout(connections.closeIdle, times.arrival),
            setTimeout(connections.closeAll, times.grace)
          ]
          server.close(() => {
            timers.forEach(clearTimeout)
            resume(Effect.void)
          })
        })
    )

    const address = server.address()!
    return HttpServer.make({
      address:
        typeof address === "string"
          ? { _tag: "UnixAddress", path: address }
          : {
              _tag: "TcpAddress",
              hostname: address.address === "::" ? "0.0.0.0" : address.address,
              port: address.port
            },
      serve: (app, middleware) =>
        Effect.gen(function* () {
          handler = yield* NodeHttpServer.makeHandler(app, middleware!)
          yield* Effect.addFinalizer(() =>
            Effect.sync(() => {
              handler = undefined
              idle = answers.stopping
            })
          )
        })
    })
  })
