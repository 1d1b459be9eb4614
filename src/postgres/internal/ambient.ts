import * as SqlClient from "@effect/sql/SqlClient"
import type { PgClientConfig } from "@effect/sql-pg/PgClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Pg from "pg"
import { LostCommit, OtherDatabase } from "./failure.js"
import { op } from "./names.js"
import { connectionOptions } from "./session.js"

type Driver = Pick<Pg.Client, "host" | "port" | "database">

/** The driver's connection of a transaction: the public field `pg` of @effect/sql-pg's connections. */
const driverOf = (connection: Connection): Driver | undefined =>
  "pg" in connection && typeof connection.pg === "object" && connection.pg !== null
    ? (connection.pg as Driver)
    : undefined

const configOf = (client: SqlClient.SqlClient): PgClientConfig | undefined =>
  "config" in client ? (client.config as PgClientConfig) : undefined

/**
 * A name and an address can stand for several databases, and one database has several of them. Every role may read
 * this.
 */
const identity = `SELECT pg_catalog.concat_ws(' ', datname, oid, pg_catalog.current_setting('port'),
    extract(epoch FROM pg_catalog.pg_postmaster_start_time())) AS identity
  FROM pg_catalog.pg_database WHERE datname ${op("=")} pg_catalog.current_database()`

const identify = (connection: Connection): Effect.Effect<string, SqlError> =>
  Effect.map(connection.execute(identity, [], undefined), ([row]) => String((row as { identity?: unknown }).identity))

/**
 * Commits, and fails if the server answered the COMMIT with a rollback, as it does after a failed statement without
 * reporting an error.
 */
export const commit = (connection: Connection): Effect.Effect<void, SqlError> =>
  Effect.flatMap(connection.executeRaw("COMMIT", []), (result) =>
    (result as { readonly command?: string } | undefined)?.command === "ROLLBACK"
      ? Effect.fail(new SqlError({ cause: new LostCommit(), message: "Failed to commit" }))
      : Effect.void
  )

const checked = new WeakSet<Connection>()

/**
 * Makes the COMMIT of a transaction checked. `sql.withTransaction` ignores the answer and has no hook, so the method of
 * the transaction's connection object is replaced. The object lives as long as the transaction.
 */
const checkCommit = (connection: Connection): void => {
  if (checked.has(connection)) return
  checked.add(connection)
  const execute = connection.executeUnprepared.bind(connection)
  const executeUnprepared: Connection["executeUnprepared"] = (text, params, transform) =>
    text === "COMMIT" ? Effect.as(commit(connection), []) : execute(text, params, transform)
  Reflect.set(connection, "executeUnprepared", executeUnprepared)
}

/**
 * Returns the connection of the ambient transaction, if there is one, and makes its COMMIT checked.
 *
 * Fails with `OtherDatabase` if that transaction is in another database than the client's: @effect/sql has one tag for
 * all clients. Connections with the client's host, port and database name count as the client's database. For other
 * connections the server is asked, once per connection.
 */
export const make = (client: SqlClient.SqlClient): Effect.Effect<Connection | undefined, OtherDatabase | SqlError> => {
  const config = configOf(client)
  // Never connects. It reads the settings like the driver does, including defaults and environment.
  const own = config === undefined ? undefined : new Pg.Client(connectionOptions(config))
  const inOwn = new WeakSet<Connection>()
  const verdicts = new WeakMap<object, OtherDatabase | true>()
  let known: string | undefined

  const looksOwn = (driver: Driver | undefined): boolean =>
    own === undefined ||
    // A custom stream leads anywhere, whatever the address is.
    (config?.stream === undefined &&
      driver !== undefined &&
      driver.host === own.host &&
      driver.port === own.port &&
      driver.database === own.database)

  const readOwn = Effect.tap(Effect.scoped(Effect.flatMap(client.reserve, identify)), (read) =>
    Effect.sync(() => {
      known = read
    })
  )

  const ask = (connection: Connection, driver: Driver | undefined) =>
    Effect.gen(function* () {
      const identified = identify(connection)
      const theirs = yield* driver === undefined ? Effect.orElseSucceed(identified, () => "no PostgreSQL") : identified
      // The server may have been restarted since the last answer: only a difference now counts.
      if (theirs === known || theirs === (yield* readOwn)) return true
      const name = theirs.split(" ")[0] ?? theirs
      return new OtherDatabase(driver === undefined ? name : `${name} at ${driver.host}:${driver.port}`)
    })

  const judge = (connection: Connection) =>
    Effect.gen(function* () {
      const driver = driverOf(connection)
      const key = driver ?? connection
      const verdict = verdicts.get(key) ?? (looksOwn(driver) ? true : yield* ask(connection, driver))
      verdicts.set(key, verdict)
      if (verdict !== true) return yield* Effect.fail(verdict)
      inOwn.add(connection)
      checkCommit(connection)
      return connection
    })

  return Effect.withFiberRuntime((fiber) => {
    const around = Context.getOption(fiber.currentContext, SqlClient.TransactionConnection)
    if (around._tag === "None") return Effect.succeed(undefined)
    const [connection] = around.value
    return inOwn.has(connection) ? Effect.succeed(connection) : judge(connection)
  })
}
