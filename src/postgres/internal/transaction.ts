import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Ambient from "./ambient.js"

/** An error of the effect that runs in a transaction. */
class Own<E> {
  readonly error: E
  constructor(error: E) {
    this.error = error
  }
}

const causeOf = (error: unknown): unknown => (error instanceof SqlError ? error.cause : error)

/**
 * Like `sql.withTransaction`, but a failure to begin or to end is an error that names the step, and a COMMIT that the
 * server answers with a rollback is a failure. The effect's own errors pass unchanged, even those of the database.
 */
export const withTransaction = <Failure>(
  sql: SqlClient.SqlClient,
  toFailure: (doing: string) => (cause: unknown) => Failure,
  // Appends and appliers write, whatever the role's default is.
  begin = "BEGIN READ WRITE"
) => {
  const ambient = Ambient.make(sql)

  const inTransaction = SqlClient.makeWithTransaction({
    transactionTag: SqlClient.TransactionConnection,
    spanAttributes: [["db.system.name", "postgresql"]],
    acquireConnection: Effect.flatMap(Scope.make(), (scope) =>
      Effect.map(Scope.extend(sql.reserve, scope), (connection) => [scope, connection] as const)
    ),
    begin: (connection: Connection) => connection.executeUnprepared(begin, [], undefined),
    savepoint: (connection, id) => connection.executeUnprepared(`SAVEPOINT effect_sql_${id}`, [], undefined),
    commit: Ambient.commit,
    rollback: (connection) => connection.executeUnprepared("ROLLBACK", [], undefined),
    rollbackSavepoint: (connection, id) =>
      connection.executeUnprepared(`ROLLBACK TO SAVEPOINT effect_sql_${id}`, [], undefined)
  })

  // Releasing a savepoint reports no failure: a statement shows whether the transaction is still usable.
  const stands = Effect.mapError(
    Effect.suspend(() => sql.unsafe("SELECT 1")),
    (error) => new Own(toFailure("keep a nested transaction")(error.cause))
  )

  return <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | Failure, R> =>
    Effect.matchEffect(ambient, {
      onFailure: (error) => Effect.fail(toFailure("begin a transaction")(causeOf(error))),
      onSuccess: (around) => {
        const own = Effect.mapError(effect, (error): Own<E | Failure> => new Own(error))
        return inTransaction(around === undefined ? own : Effect.zipLeft(own, stands)).pipe(
          Effect.mapError((error) =>
            error instanceof Own ? error.error : toFailure("begin a transaction")(error.cause)
          ),
          // @effect/sql turns a failing commit or rollback into a defect.
          Effect.catchSomeCause((cause) =>
            Option.map(
              Option.filter(Cause.dieOption(cause), (defect) => defect instanceof SqlError),
              (defect) => Effect.fail(toFailure("end the transaction")(defect.cause))
            )
          )
        )
      }
    })
}
