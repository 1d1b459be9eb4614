import type { PgClientConfig } from "@effect/sql-pg/PgClient"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Pg from "pg"
import type { OutboxError } from "../../OutboxStore.js"
import { quote, type Names } from "./names.js"
import { toOutboxError } from "./failure.js"
import { connectionOptions, queries, type Session } from "./session.js"
import * as Settled from "./settled.js"

/** A connection that listens. Its statements run one after another. */
export interface Listener extends Pick<Session, "query" | "script"> {
  readonly isLost: () => boolean
  /** Completes when the connection is lost. */
  readonly lost: Effect.Effect<void>
  /** Runs a statement without waiting for it. */
  readonly send: (text: string) => Effect.Effect<void>
}

/**
 * The connection leads through a pooler: the server's process is not the one that the connection was told at its start.
 * Session state such as LISTEN and session locks can stay on a connection that another client uses next.
 */
export class Pooled extends Data.TaggedError("Pooled")<{ readonly serverPid: number | undefined }> {}

/** Timeout of a listening connection that does not answer, in milliseconds. */
const silence = 5_000

interface Connection {
  readonly client: Pg.Client
  readonly lost: Effect.Latch
  readonly isLost: () => boolean
  readonly onLost: () => void
}

/** The server process of the connection, which the driver keeps for cancellation. */
const processId = (client: Pg.Client): unknown => ("processID" in client ? client.processID : undefined)

const open = (
  config: PgClientConfig,
  names: Names,
  onNotification: () => void
): Effect.Effect<Connection, OutboxError | Pooled> =>
  Effect.tryPromise({
    try: async () => {
      const client = new Pg.Client({ ...connectionOptions(config), query_timeout: silence })
      const lost = Effect.unsafeMakeLatch(false)
      let isLost = false
      const onLost = () => {
        isLost = true
        lost.unsafeOpen()
      }
      client.on("error", onLost)
      client.on("end", onLost)
      client.on("notification", onNotification)
      try {
        await client.connect()
        const { rows } = await client.query<{ readonly pid: number }>("SELECT pg_catalog.pg_backend_pid() AS pid")
        const serverPid = rows[0]?.pid
        if (serverPid !== processId(client)) throw new Pooled({ serverPid })
        await client.query(`${Settled.session}; LISTEN ${quote(names.channel)}`)
      } catch (cause) {
        void client.end().catch(() => {})
        throw cause
      }
      return { client, lost, isLost: () => isLost, onLost }
    },
    catch: (cause) => (cause instanceof Pooled ? cause : toOutboxError("listen for appends")(cause))
  })

/**
 * Opens a listening connection until the scope closes. The client of @effect/sql-pg does not fit: its stream goes
 * silent when the connection is lost.
 */
export const listen = (
  config: PgClientConfig,
  names: Names,
  onNotification: () => void
): Effect.Effect<Listener, OutboxError | Pooled, Scope.Scope> =>
  Effect.gen(function* () {
    const { client, isLost, lost, onLost } = yield* Effect.acquireRelease(
      open(config, names, onNotification),
      ({ client }) =>
        Effect.promise(() => client.end().catch(() => {})).pipe(
          Effect.interruptible,
          Effect.timeoutOption(Duration.seconds(1))
        )
    )
    const scope = yield* Effect.scope
    const mutex = yield* Effect.makeSemaphore(1)
    const { query, script } = queries(client, onLost)
    // Bounded by the timeouts. An interruption only abandons the statement; otherwise it would cost the connection.
    const oneByOne = <A, E>(effect: Effect.Effect<A, E>) =>
      Effect.disconnect(mutex.withPermits(1)(Effect.uninterruptible(effect)))
    return {
      isLost,
      lost: lost.await,
      query: (text, values) => oneByOne(query(text, values)),
      script: (text) => oneByOne(script(text)),
      send: (text) => Effect.asVoid(Effect.forkIn(Effect.ignore(oneByOne(query(text))), scope))
    } satisfies Listener
  })
