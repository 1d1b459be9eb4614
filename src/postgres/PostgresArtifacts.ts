/**
 * Which artifacts the outbox's table refers to.
 *
 * @since 0.1.0
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import type { OutboxError } from "../OutboxStore.js"
import { toOutboxError } from "./internal/failure.js"
import { op, quote } from "./internal/names.js"
import * as Statement from "./internal/statement.js"

/**
 * The artifacts that rows of the outbox refer to, including published rows, in the database of the `SqlClient`. Reads
 * the whole table for every thousand artifacts.
 *
 * If the retention removes rows while nodes still need their artifacts, another source has to report those artifacts.
 *
 * @since 0.1.0
 * @category constructors
 */
export const inOutbox =
  (options: { readonly schema?: string | undefined } = {}) =>
  (artifactRefs: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<string>, OutboxError, SqlClient.SqlClient> =>
    Effect.flatMap(SqlClient.SqlClient, (client) => {
      const table = `${quote(options.schema ?? "public")}.control_events_outbox`
      // A writer without this package need not fill the column.
      const reference = `coalesce(artifact_ref, payload_json ${op("->>")} 'artifact_ref')`
      const run = Statement.make(client.withoutTransforms(), toOutboxError)
      return Effect.map(
        run<{ readonly reference: string }>(
          "look for references to artifacts",
          `SELECT DISTINCT ${reference} AS reference FROM ${table} WHERE ${reference} ${op("=")} ANY ($1::pg_catalog.text[])`,
          [artifactRefs]
        ),
        (rows) => rows.map(({ reference }) => reference)
      )
    })
