/**
 * The outbox in PostgreSQL.
 *
 * @since 0.1.0
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { EventId } from "../EventId.js"
import * as Lane from "../Lane.js"
import type { Count, OutboxStore, ParkedEvent } from "../OutboxStore.js"
import * as Append from "./internal/append.js"
import * as Claim from "./internal/claim.js"
import * as Columns from "./internal/columns.js"
import { milliseconds, parked, pending } from "./internal/columns.js"
import { toOutboxError } from "./internal/failure.js"
import * as Names from "./internal/names.js"
import * as Positions from "./internal/positions.js"
import * as Probe from "./internal/probe.js"
import { makePool, type WithSession } from "./internal/session.js"
import * as Settled from "./internal/settled.js"
import { withTransaction } from "./internal/transaction.js"

/** Only an upper bound: the pump's concurrency decides. */
const connections = 2 * Lane.count

const statements = ({ channel, outbox }: Names.Names) => ({
  backlog: (limit: string) => `
    SELECT ${Columns.count(outbox, pending, limit)} AS pending, ${Columns.countWaiting(outbox, limit)} AS waiting,
      ${Columns.count(outbox, parked, limit)} AS parked,
      (SELECT ${milliseconds("min(created_at)")} FROM ${Columns.lanes}
        CROSS JOIN LATERAL (${Columns.ofLane(outbox, pending, "created_at", "1")}) first) AS "oldestPendingAt"`,

  parked: (
    limit: string
  ) => `SELECT ${Columns.bounded("event_id")} AS "eventId", ${Columns.bounded("event_type")} AS type,
      ${Columns.bounded("ordering_key")} AS "orderingKey",
      attempt_count AS "attemptCount", ${milliseconds("parked_at")} AS "parkedAt", coalesce(last_error, '') AS error
    FROM ${outbox} WHERE ${parked} ORDER BY id LIMIT ${limit}`,

  redrive: `
    WITH redriven AS (
      UPDATE ${outbox} SET parked_at = NULL, next_attempt_at = NULL, attempt_count = 0
      WHERE event_id = ANY ($1::text[]) AND ${parked}
      RETURNING event_id
    ), announced AS (
      SELECT pg_notify(${Names.literal(channel)}, 'redrive') WHERE EXISTS (SELECT FROM redriven)
    )
    SELECT event_id AS "eventId" FROM redriven LEFT JOIN announced ON true`
})

const count = (value: number, limit: number): Count => ({ value, exact: value < limit })

/**
 * The store of a schema, with the connection settings of `PgClient`. Appends join the transaction of the application.
 * Everything else uses the store's own connections, opened on demand: one for each claimed lane, and one for other
 * queries.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (names: Names.Names): Effect.Effect<OutboxStore["Type"], never, PgClient.PgClient | Scope.Scope> =>
  Effect.gen(function* () {
    const client = yield* PgClient.PgClient
    const sql = client.withoutTransforms()
    const positions = Positions.make()
    const text = statements(names)
    const session = yield* makePool(client.config, connections, positions.clear)

    const withSession: WithSession = (use) => Effect.scoped(Effect.flatMap(session, use))

    return {
      append: Append.make(sql, names),

      withTransaction: withTransaction(sql, toOutboxError),

      probe: Probe.make(names, positions, withSession),

      claim: Claim.make(names, positions, session),

      backlog: ({ limit }) =>
        Effect.map(
          withSession((session) =>
            Settled.query<{
              readonly pending: number
              readonly waiting: number
              readonly parked: number
              readonly oldestPendingAt: number | null
            }>(session, text.backlog(String(limit)))
          ),
          ([row]) => ({
            pending: count(row?.pending ?? 0, limit),
            waiting: count(row?.waiting ?? 0, limit),
            parked: count(row?.parked ?? 0, limit),
            oldestPendingAt: row?.oldestPendingAt ?? undefined
          })
        ),

      parked: ({ limit }) => withSession((session) => Settled.query<ParkedEvent>(session, text.parked(String(limit)))),

      redrive: (eventIds) =>
        Effect.map(
          Settled.transaction(session, Settled.begin("READ COMMITTED READ WRITE", { idle: 0 }), (session) =>
            session.query<{ readonly eventId: string }>(text.redrive, [eventIds])
          ),
          (rows) => rows.map((row) => row.eventId as EventId)
        )
    }
  })
