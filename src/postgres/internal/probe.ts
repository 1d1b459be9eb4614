import * as Effect from "effect/Effect"
import { crowd, type AfterParked, type OutboxStore, type Probe } from "../../OutboxStore.js"
import * as Columns from "./columns.js"
import { inLane, inLaneFrom, instant, milliseconds, parked, pending } from "./columns.js"
import { integers } from "./names.js"
import type * as Names from "./names.js"
import type * as Positions from "./positions.js"
import { publishable as publishableIn } from "./publishable.js"
import type { WithSession } from "./session.js"
import * as Settled from "./settled.js"

const statements = (names: Names.Names) => {
  const { outbox } = names
  const probed = "(position - 1)::smallint"
  const drawn = `${Columns.drawn(names.sequence)}::text`
  const publishable = publishableIn(outbox)
  return {
    // The order (lane, id) leaves the planner only the index of pending rows. With the statistics of an earlier backlog
    // it would walk the whole table by id. OFFSET 0 makes EXISTS keep its order.
    probe: (starts: ReadonlyArray<string>, now: string, afterParked: AfterParked) => `
      SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS xmin, ${drawn} AS drawn,
        (SELECT ${milliseconds("min(next_attempt_at)")} FROM ${outbox}
          WHERE ${pending} AND next_attempt_at > ${instant(now)}) AS next_attempt_at,
        coalesce(array_agg(lane), '{}') AS lanes,
        coalesce(array_agg(head::text), '{}') AS heads,
        coalesce(array_agg(publishable), '{}') AS publishable,
        coalesce(array_agg(crowded), '{}') AS crowded
      FROM (
        SELECT position::int - 1 AS lane, least(first.id, parked.id) AS head,
          first.id IS NOT NULL AND (${publishable("first", now, afterParked)} OR EXISTS (
            SELECT FROM ${outbox} later WHERE ${pending} AND ${inLaneFrom(probed, "first.id + 1")}
              AND ${publishable("later", now, afterParked)} ORDER BY lane, id OFFSET 0)) AS publishable,
          EXISTS (SELECT FROM ${outbox} other WHERE ${pending} AND ${inLaneFrom(probed, "first.id")}
            ORDER BY lane, id OFFSET ${crowd - 1} LIMIT 1) AS crowded
        FROM unnest('${integers(starts)}'::bigint[]) WITH ORDINALITY AS starts (start, position)
        LEFT JOIN LATERAL (
          SELECT id, lane, ordering_key FROM ${outbox} WHERE ${pending} AND ${inLaneFrom(probed, "start")}
          ORDER BY lane, id LIMIT 1
        ) first ON true
        LEFT JOIN LATERAL (
          SELECT id FROM ${outbox} WHERE ${parked} AND ${inLane(probed)}
          ORDER BY lane, id LIMIT 1
        ) parked ON true
        WHERE first.id IS NOT NULL OR parked.id IS NOT NULL
      ) lanes`
  }
}

/** Looks for publishable rows in the lanes. */
export const make = (
  names: Names.Names,
  positions: Positions.Positions,
  withSession: WithSession
): OutboxStore["Type"]["probe"] => {
  const text = statements(names)
  return ({ afterParked, now }) =>
    withSession((session) =>
      Settled.query<{
        readonly xmin: string
        readonly drawn: string
        readonly next_attempt_at: number | null
        readonly lanes: ReadonlyArray<number>
        readonly heads: ReadonlyArray<string>
        readonly publishable: ReadonlyArray<boolean>
        readonly crowded: ReadonlyArray<boolean>
      }>(session, text.probe(positions.starts(), String(now), afterParked))
    ).pipe(
      Effect.map(([row]): Probe => {
        if (row === undefined) return { lanes: [], crowded: new Set(), nextAttemptAt: undefined }
        const heads = new Map(row.lanes.map((lane, index) => [lane, BigInt(row.heads[index]!)]))
        positions.advance({ xmin: BigInt(row.xmin), drawn: BigInt(row.drawn), heads }, now)
        return {
          lanes: row.lanes.filter((_, index) => row.publishable[index]),
          crowded: new Set(row.lanes.filter((_, index) => row.crowded[index])),
          nextAttemptAt: row.next_attempt_at ?? undefined
        }
      })
    )
}
