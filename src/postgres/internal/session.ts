import type { PgClientConfig } from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Pg from "pg"
import type { OutboxError } from "../../OutboxStore.js"
import { toOutboxError } from "./failure.js"

/**
 * One of the outbox's own connections. Pumps do not use the application's pool: it cannot discard a connection that
 * hangs, waits without a deadline for a free one, and turns failing commits into defects.
 */
export interface Session {
  /** Runs one statement. */
  readonly query: <Row extends object>(
    text: string,
    values?: ReadonlyArray<unknown>
  ) => Effect.Effect<ReadonlyArray<Row>, OutboxError>
  /** Runs several statements in one round trip and returns the rows of each. */
  readonly script: (text: string) => Effect.Effect<ReadonlyArray<ReadonlyArray<unknown>>, OutboxError>
  /** Whether the connection has failed and must not be used again. */
  readonly isBroken: () => boolean
}

/** Runs an effect with a session and returns the session afterwards. */
export type WithSession = <A>(use: (session: Session) => Effect.Effect<A, OutboxError>) => Effect.Effect<A, OutboxError>

/** If the server does not answer, the interruption discards the connection, which ends the transaction. */
export const rollback = (session: Session): Effect.Effect<void> =>
  session.isBroken()
    ? Effect.void
    : Effect.ignore(session.query("ROLLBACK")).pipe(Effect.interruptible, Effect.timeoutOption(1_000), Effect.asVoid)

/** Timeout of connecting and of each statement, in milliseconds. */
const connectTimeout = 5_000
export const queryTimeout = 15_000

export const connectionOptions = (config: PgClientConfig): Pg.ClientConfig => ({
  connectionString: config.url && Redacted.value(config.url),
  host: config.host,
  port: config.port,
  database: config.database,
  user: config.username,
  password: config.password && Redacted.value(config.password),
  ssl: config.ssl,
  ...(config.stream === undefined ? {} : { stream: config.stream }),
  application_name: "controlpublish",
  keepAlive: true,
  connectionTimeoutMillis: connectTimeout,
  query_timeout: queryTimeout
})

/** Runs a query of the driver. Discards the connection if the query failed or was interrupted. */
const run = (
  client: Pg.ClientBase,
  onFailure: () => void,
  text: string,
  values: ReadonlyArray<unknown> | undefined
): Effect.Effect<unknown, OutboxError> =>
  Effect.async((resume) => {
    client.query(text, values as Array<unknown>, (cause: Error | null, result: unknown) => {
      if (cause instanceof Error) {
        // An error that the server reported leaves the connection usable.
        if (!(cause instanceof Pg.DatabaseError)) onFailure()
        resume(Effect.fail(toOutboxError("query the outbox")(cause)))
      } else {
        resume(Effect.succeed(result))
      }
    })
    // The statement continues on the server.
    return Effect.sync(onFailure)
  })

export const queries = (client: Pg.ClientBase, onFailure: () => void): Pick<Session, "query" | "script"> => ({
  query: <Row extends object>(text: string, values?: ReadonlyArray<unknown>) =>
    Effect.map(run(client, onFailure, text, values), (result) => (result as Pg.QueryResult<Row>).rows),
  script: (text) =>
    Effect.map(run(client, onFailure, text, undefined), (results) =>
      (results as ReadonlyArray<Pg.QueryResult<object>>).map((result) => result.rows)
    )
})

interface Connection {
  readonly client: Pg.PoolClient
  readonly onError: () => void
  broken: boolean
}

/**
 * A pool of at most `max` connections, opened on demand. A session whose connection failed is closed and not reused,
 * which ends its transaction. `onConnect` is called for every new connection.
 */
export const makePool = (
  config: PgClientConfig,
  max: number,
  onConnect: () => void
): Effect.Effect<Effect.Effect<Session, OutboxError, Scope.Scope>, never, Scope.Scope> =>
  Effect.gen(function* () {
    const pool = yield* Effect.acquireRelease(
      Effect.sync(() => new Pg.Pool({ ...connectionOptions(config), max, idleTimeoutMillis: 10_000 })),
      (pool) => Effect.promise(() => pool.end()).pipe(Effect.interruptible, Effect.timeoutOption(1_000))
    )
    pool.on("connect", onConnect)
    // A broken idle connection is replaced on demand.
    pool.on("error", () => {})

    const release = ({ broken, client, onError }: Connection) => {
      client.release(broken)
      client.off("error", onError)
    }

    return Effect.gen(function* () {
      // The scope owns the connection from the moment that the pool hands it over. Otherwise an interruption before the
      // fiber's next step would lose it and its place in the pool.
      let wanted = true
      let handed: Connection | undefined
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          wanted = false
          if (handed !== undefined) release(handed)
        })
      )
      const connection = yield* Effect.async<Connection, OutboxError>((resume) => {
        pool.connect((cause, client) => {
          if (client === undefined) {
            resume(Effect.fail(toOutboxError("connect to the database")(cause)))
          } else if (wanted) {
            const connection: Connection = { client, broken: false, onError: () => void (connection.broken = true) }
            client.on("error", connection.onError)
            handed = connection
            resume(Effect.succeed(connection))
          } else {
            client.release()
          }
        })
      })
      return { ...queries(connection.client, connection.onError), isBroken: () => connection.broken }
    })
  })
