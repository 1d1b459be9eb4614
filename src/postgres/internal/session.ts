import type { PgClientConfig } from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Pg from "pg"
import type { OutboxError } from "../../OutboxStore.js"
import { toOutboxError } from "./failure.js"

/**
 * A connection of the outbox's own. Pumps do not borrow the application's: its pool cannot give a connection up that
 * hangs, waits for one without a deadline, and makes defects of failing commits.
 */
export interface Session {
  /** Runs one statement. */
  readonly query: <Row extends object>(
    text: string,
    values?: ReadonlyArray<unknown>
  ) => Effect.Effect<ReadonlyArray<Row>, OutboxError>
  /** Runs several statements in one round trip, and answers the rows of each. */
  readonly script: (text: string) => Effect.Effect<ReadonlyArray<ReadonlyArray<unknown>>, OutboxError>
  /** Whether the connection has failed, and is of no further use. */
  readonly isBroken: () => boolean
}

/** Runs something on a session that is given back after it. */
export type WithSession = <A>(use: (session: Session) => Effect.Effect<A, OutboxError>) => Effect.Effect<A, OutboxError>

/** A server that does not answer ends the transaction with the connection, which the interruption costs. */
export const rollback = (session: Session): Effect.Effect<void> =>
  session.isBroken()
    ? Effect.void
    : Effect.ignore(session.query("ROLLBACK")).pipe(Effect.interruptible, Effect.timeoutOption(1_000), Effect.asVoid)

/** Milliseconds until a connection that cannot be made, or a statement that is not answered, is given up. */
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

/** Runs a query of the driver's, and gives the connection up where it failed or nobody waits any more. */
const run = (
  client: Pg.ClientBase,
  onFailure: () => void,
  text: string,
  values: ReadonlyArray<unknown> | undefined
): Effect.Effect<unknown, OutboxError> =>
  Effect.async((resume) => {
    client.query(text, values as Array<unknown>, (cause: Error | null, result: unknown) => {
      if (cause instanceof Error) {
        // After an error that the server reported the connection is as good as before.
        if (!(cause instanceof Pg.DatabaseError)) onFailure()
        resume(Effect.fail(toOutboxError("query the outbox")(cause)))
      } else {
        resume(Effect.succeed(result))
      }
    })
    // The statement goes on at the server.
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
 * A pool of at most `max` connections, none as long as none is needed. A session whose connection failed is closed and
 * not used again, which ends its transaction. `onConnect` is called for every connection that is made.
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
    // An idle connection that breaks is replaced when it is needed.
    pool.on("error", () => {})

    const release = ({ broken, client, onError }: Connection) => {
      client.release(broken)
      client.off("error", onError)
    }

    return Effect.gen(function* () {
      // The scope owns the connection from the moment that the pool hands it over: an interruption between that and the
      // next step of the fiber would lose it, and with it a place in the pool.
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
