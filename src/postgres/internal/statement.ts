import type { SqlClient } from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Ambient from "./ambient.js"

/**
 * Runs statements on the client, in the ambient transaction if there is one. Fails if that transaction is in another
 * database, where the statement would run otherwise.
 */
export const make = <Failure>(sql: SqlClient, toFailure: (doing: string) => (cause: unknown) => Failure) => {
  const ambient = Ambient.make(sql)
  return <Row extends object>(
    doing: string,
    text: string,
    values: ReadonlyArray<unknown> = []
  ): Effect.Effect<ReadonlyArray<Row>, Failure> =>
    Effect.mapError(Effect.zipRight(ambient, sql.unsafe<Row>(text, values)), (error) =>
      toFailure(doing)(error instanceof SqlError ? error.cause : error)
    )
}
