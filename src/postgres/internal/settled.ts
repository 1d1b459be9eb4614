import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { OutboxError } from "../../OutboxStore.js"
import { queryTimeout, rollback, type Session } from "./session.js"

/** The search_path of all sessions of the service: nobody else's function, operator or type runs with its rights. */
export const searchPath = "pg_catalog, pg_temp"

/**
 * The settings that every transaction of the service needs, whatever role, database and server have. They are local to
 * the transaction: behind a pooler another client uses the connection next. One statement.
 */
export const settings = (timeouts: {
  readonly statement?: number
  readonly lock?: number
  readonly idle: number
}): string => {
  const values = {
    search_path: searchPath,
    statement_timeout: timeouts.statement ?? queryTimeout,
    lock_timeout: timeouts.lock ?? 0,
    idle_in_transaction_session_timeout: timeouts.idle,
    synchronous_commit: "on",
    // Instants and versions are read as float8. Values below 1 would round them.
    extra_float_digits: 1
  }
  const calls = Object.entries(values).map(([name, value]) => `pg_catalog.set_config('${name}', '${value}', true)`)
  return `SELECT ${calls.join(", ")}`
}

/** Begins a transaction in a mode, with the settings. */
export const begin = (mode: string, timeouts: Parameters<typeof settings>[0]): string =>
  `BEGIN ISOLATION LEVEL ${mode}; ${settings(timeouts)}`

/**
 * Runs one statement with the settings in one round trip: several statements without a BEGIN are one transaction that a
 * failure ends. That protocol has no parameters.
 */
export const query = <Row extends object>(
  session: Session,
  text: string
): Effect.Effect<ReadonlyArray<Row>, OutboxError> =>
  Effect.map(
    session.script(`SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY; ${settings({ idle: 0 })}; ${text}`),
    (results) => results[results.length - 1] as ReadonlyArray<Row>
  )

/** Runs an effect in a transaction that `begin` begins, on its own session. */
export const transaction = <A, E>(
  session: Effect.Effect<Session, OutboxError, Scope.Scope>,
  begin: string,
  use: (session: Session) => Effect.Effect<A, E | OutboxError>
): Effect.Effect<A, E | OutboxError> =>
  Effect.gen(function* () {
    const connection = yield* session
    let open = true
    yield* Effect.addFinalizer(() => (open ? rollback(connection) : Effect.void))
    yield* connection.script(begin)
    const result = yield* use(connection)
    yield* connection.query("COMMIT")
    open = false
    return result
  }).pipe(Effect.scoped)

/** Sets the settings for a whole session. Only for connections without a pooler. */
export const session: string = `SET search_path = ${searchPath};
  SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off;
  SET default_transaction_deferrable = off;
  SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0;
  SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'`
