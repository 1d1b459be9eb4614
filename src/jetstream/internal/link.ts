import {
  connect,
  createInbox,
  credsAuthenticator,
  errors,
  NatsConnectionImpl,
  tokenAuthenticator,
  usernamePasswordAuthenticator,
  type ConnectionOptions,
  type Msg,
  type MsgHdrs,
  type NatsConnection
} from "@nats-io/transport-node"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { SinkUnavailable } from "../../Sink.js"
import type { Connection } from "../Connection.js"

/** Waits for the answer to one message. */
export interface Waiter {
  readonly answered: (reply: Msg) => void
  /** There will be no answer. Whether the message arrived is unknown. */
  readonly lost: (reason: SinkUnavailable) => void
}

/**
 * One connection to the servers, until it breaks. A new connection is a new link. The client's own reconnect is off: it
 * would keep messages and send them after their deadline, when another pump may be ahead.
 */
export interface Link {
  readonly nc: NatsConnection
  /** The connected server, for log lines. */
  readonly server: string
  /** Its version. */
  readonly version: string
  /** The maximum size of a message's headers and payload together, in bytes. */
  readonly maxPayload: number
  readonly isOpen: () => boolean
  /** Sends a message at once and passes the answer to the waiter. Returns a ticket for {@link Link.forget}. */
  readonly send: (subject: string, payload: Uint8Array, headers: MsgHdrs, waiter: Waiter) => number
  /** Stops waiting for an answer. */
  /** Sends a message at once, which nobody answers. */
  readonly post: (subject: string, payload: Uint8Array, headers: MsgHdrs) => void
  readonly forget: (ticket: number) => void
  /** Runs after the answers of this event-loop turn, so that all batches share one socket write. */
  readonly afterwards: (next: () => void) => void
  /** Closes the connection and discards what it has not sent yet. */
  readonly abandon: (reason: SinkUnavailable) => void
  readonly close: Effect.Effect<void>
}

const connectTimeout = 3_000

const unavailable = (reason: SinkUnavailable["reason"], message: string, cause: unknown) =>
  new SinkUnavailable({ sink: "jetstream", reason, message, cause })

const isDenied = (cause: unknown) =>
  cause instanceof errors.AuthorizationError ||
  cause instanceof errors.UserAuthenticationExpiredError ||
  cause instanceof errors.PermissionViolationError

/**
 * Node's error codes: `CERT_HAS_EXPIRED`, `UNABLE_TO_VERIFY_LEAF_SIGNATURE`, `ERR_TLS_CERT_ALTNAME_INVALID` and others.
 */
const isCertificate = (cause: unknown) =>
  cause instanceof Error && "code" in cause && /CERT|SIGNATURE|ISSUER|TLS/.test(String(cause.code))

/** Classifies a failure of the client or of one of its requests. */
export const toUnavailable =
  (doing: string) =>
  (cause: unknown): SinkUnavailable => {
    const text = cause instanceof Error && cause.message !== "" ? cause.message : String(cause)
    if (isDenied(cause)) {
      return unavailable("misconfigured", `${doing}: ${text}; check the credentials and their permissions`, cause)
    }
    if (isCertificate(cause)) {
      return unavailable("misconfigured", `${doing}: ${text}; check the certificates`, cause)
    }
    const reason = cause instanceof errors.TimeoutError ? "timeout" : "unreachable"
    return unavailable(reason, `${doing}: ${text}`, cause)
  }

const optionsOf = ({ credentials, servers, tls }: Connection): ConnectionOptions => ({
  servers: [...servers],
  name: "controlpublish",
  reconnect: false,
  timeout: connectTimeout,
  // A server that is silent for 10 to 15 seconds counts as lost.
  pingInterval: 5_000,
  maxPingOut: 2,
  noAsyncTraces: true,
  // If present, even if empty, the client insists on TLS.
  ...(tls === undefined && !servers.some((server) => server.startsWith("tls://")) ? {} : { tls: definedOf(tls) }),
  ...(credentials === undefined ? {} : { authenticator: authenticatorOf(credentials) })
})

const definedOf = ({ caFile, certFile, keyFile }: NonNullable<Connection["tls"]> = {}) => ({
  ...(caFile === undefined ? {} : { caFile }),
  ...(certFile === undefined ? {} : { certFile }),
  ...(keyFile === undefined ? {} : { keyFile })
})

const authenticatorOf = (credentials: NonNullable<Connection["credentials"]>) => {
  switch (credentials._tag) {
    case "token":
      return tokenAuthenticator(Redacted.value(credentials.token))
    case "password":
      return usernamePasswordAuthenticator(credentials.user, Redacted.value(credentials.password))
    case "creds":
      return credsAuthenticator(new TextEncoder().encode(Redacted.value(credentials.creds)))
  }
}

const dial = async (connection: Connection) => connect(optionsOf(connection))

/**
 * Connects, listens for answers, and passes the link to its keeper. An interruption while it connects leaks no
 * connection.
 */
export const open = (connection: Connection, keep: (link: Link) => void): Effect.Effect<Link, SinkUnavailable> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.suspend(() => {
      const dialled = dial(connection)
      return restore(
        Effect.async<NatsConnection, SinkUnavailable>((resume) => {
          dialled.then(
            (nc) => resume(Effect.succeed(nc)),
            (cause: unknown) =>
              resume(Effect.fail(toUnavailable(`Cannot connect to ${connection.servers.join(", ")}`)(cause)))
          )
        })
      ).pipe(
        Effect.onInterrupt(() =>
          Effect.sync(() => {
            void dialled.then(
              (nc) => nc.close(),
              () => {}
            )
          })
        ),
        Effect.map((nc) => {
          const link = make(nc)
          keep(link)
          return link
        })
      )
    })
  )

const make = (nc: NatsConnection): Link => {
  const version = nc.info?.version ?? "of unknown version"
  const inbox = createInbox()
  const waiters = new Map<number, Waiter>()
  const due: Array<() => void> = []
  let tickets = 0
  let isOpen = true

  const giveUp = (reason: SinkUnavailable) => {
    isOpen = false
    const lost = Array.from(waiters.values())
    waiters.clear()
    for (const waiter of lost) waiter.lost(reason)
  }

  const abandon = (reason: SinkUnavailable) => {
    if (!isOpen) return
    // A regular close would wait until everything is sent.
    if (nc instanceof NatsConnectionImpl) nc.protocol.transport.discard()
    void nc.close()
    giveUp(reason)
  }

  nc.subscribe(`${inbox}.*`, {
    callback: (error, reply) => {
      if (error !== null) {
        abandon(toUnavailable("Cannot listen for acknowledgements")(error))
        return
      }
      const ticket = Number(reply.subject.slice(inbox.length + 1))
      const waiter = waiters.get(ticket)
      waiters.delete(ticket)
      waiter?.answered(reply)
    }
  })
  void nc.closed().then((cause) => giveUp(toUnavailable("The connection was lost")(cause ?? "closed by the server")))
  void (async () => {
    for await (const status of nc.status()) {
      // A server does not answer a publish that it does not permit.
      if (status.type !== "error" || !(status.error instanceof errors.PermissionViolationError)) continue
      if (status.error.operation === "publish" && !status.error.subject.startsWith("$JS.")) {
        abandon(toUnavailable("Cannot publish")(status.error))
      }
    }
  })()

  return {
    nc,
    server: `${nc.getServer()} (nats-server ${version})`,
    version,
    maxPayload: nc.info?.max_payload ?? Infinity,
    isOpen: () => isOpen && !nc.isClosed(),
    send: (subject, payload, headers, waiter) => {
      const ticket = ++tickets
      nc.publish(subject, payload, { headers, reply: `${inbox}.${ticket}` })
      waiters.set(ticket, waiter)
      return ticket
    },
    post: (subject, payload, headers) => nc.publish(subject, payload, { headers }),
    forget: (ticket) => void waiters.delete(ticket),
    afterwards: (next) => {
      if (due.push(next) > 1) return
      setImmediate(() => {
        for (const next of due.splice(0)) next()
      })
    },
    abandon,
    close: Effect.promise(() => {
      giveUp(unavailable("unreachable", "The sink is closed", undefined))
      return nc.close()
    }).pipe(Effect.interruptible, Effect.timeoutOption(1_000), Effect.asVoid)
  }
}
