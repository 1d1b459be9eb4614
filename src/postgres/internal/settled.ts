import { queryTimeout } from "./session.js"

/**
 * What every transaction of the service sets for itself, whatever role, database and server say. Names are found in
 * pg_catalog alone, so that nobody's function or operator is run with the service's rights. Local to the transaction:
 * behind a pooler the connection is somebody else's afterwards. One statement.
 *
 * Statements that are a transaction of their own have no such setting: their functions are qualified, and their operators
 * are those of exactly the types at hand, which a search path that begins with pg_catalog finds there first.
 */
export const settings = (timeouts: {
  readonly statement?: number
  readonly lock?: number
  readonly idle: number
}): string => {
  const values = {
    search_path: "pg_catalog, pg_temp",
    statement_timeout: timeouts.statement ?? queryTimeout,
    lock_timeout: timeouts.lock ?? 0,
    idle_in_transaction_session_timeout: timeouts.idle,
    synchronous_commit: "on"
  }
  const calls = Object.entries(values).map(([name, value]) => `pg_catalog.set_config('${name}', '${value}', true)`)
  return `SELECT ${calls.join(", ")}`
}
