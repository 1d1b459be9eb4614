/**
 * Reads a snapshot's position from the outbox.
 *
 * @since 0.1.0
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import type { EventId } from "../EventId.js"
import type { Snapshot } from "../fleet/Snapshot.js"
import type { Position } from "../fleet/Source.js"
import type { OutboxError } from "../OutboxStore.js"
import { toOutboxError } from "./internal/failure.js"
import { quote } from "./internal/names.js"
import * as Statement from "./internal/statement.js"

/**
 * The outbox and the feed of a snapshot.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The PostgreSQL schema of the outbox. Default `public`. */
  readonly schema?: string | undefined
  /**
   * The newest version of the feed (`Source.look`), read before the transaction began: the snapshot contains everything
   * up to it. The outbox alone does not know it, because the retention removes published rows with their versions.
   */
  readonly newest: Position
}

/**
 * Reads the position from the outbox. Run it in the transaction that reads the snapshot, with isolation `REPEATABLE
 * READ`, so that both see the same state.
 *
 * @since 0.1.0
 * @category constructors
 */
export const take = (options: Options): Effect.Effect<Snapshot, OutboxError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (client) => {
    const table = `${quote(options.schema ?? "public")}.control_events_outbox`
    const run = Statement.make(client.withoutTransforms(), toOutboxError)
    return Effect.map(
      run<{ readonly position: number; readonly pending: ReadonlyArray<EventId> }>(
        "read the position of a snapshot",
        `SELECT greatest(pg_catalog.max(published_control_version), $1::bigint)::pg_catalog.float8 AS position,
          coalesce(pg_catalog.array_agg(event_id) FILTER (WHERE published_control_version IS NULL), '{}') AS pending
        FROM ${table}`,
        [options.newest]
      ),
      ([row]) => ({ position: row?.position ?? 0, pending: row?.pending ?? [] })
    )
  })
