import type * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"

/** An error of the effect that runs in a transaction. */
class Own<E> {
  readonly error: E
  constructor(error: E) {
    this.error = error
  }
}

/**
 * `sql.withTransaction`, but what fails to begin or to end is an error that tells what it was doing. The effect's own
 * errors, which may be of the database as well, pass as they are.
 */
export const withTransaction =
  <Failure>(sql: SqlClient.SqlClient, toFailure: (doing: string) => (cause: unknown) => Failure) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | Failure, R> =>
    sql.withTransaction(Effect.mapError(effect, (error) => new Own(error))).pipe(
      Effect.mapError((error) => (error instanceof Own ? error.error : toFailure("begin a transaction")(error.cause))),
      // To @effect/sql a commit or rollback that fails is a defect.
      Effect.catchSomeCause((cause) =>
        Option.map(
          Option.filter(Cause.dieOption(cause), (defect) => defect instanceof SqlError),
          (defect) => Effect.fail(toFailure("end the transaction")(defect.cause))
        )
      )
    )
