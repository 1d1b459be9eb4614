import * as Columns from "../../../../src/postgres/internal/columns.js"
import * as Guarded from "../../../../src/postgres/internal/guarded.js"
import { quote, type Names } from "../../../../src/postgres/internal/names.js"
import * as Settled from "../../../../src/postgres/internal/settled.js"
import * as Lane from "../../../../src/Lane.js"
import { batch, type Claimed } from "../variant.js"

/** A name beside the outbox. */
export const beside = ({ schema }: Names, name: string): string => `${quote(schema)}.${name}`

export const laneCount = Lane.count

/** The columns that a claim reads of a row. */
export const claimedColumns = (row: string, attempts: string): string =>
  `${row}.id, ${row}.event_id, ${row}.ordering_key, ${row}.payload_json, ${row}.payload_bytes, ${row}.traceparent,
   ${row}.created_at, ${attempts} AS attempt_count`

/** Plans that walk in the order of the index on (lane, id), and nothing else. */
const inOrder = ["enable_bitmapscan", "enable_sort", "enable_seqscan", "enable_hashjoin", "enable_mergejoin"]
  .map((name) => `set_config('${name}', 'off', true)`)
  .join(", ")

/** A look in one round trip, as `Settled.query` asks for today's. */
export const lookText = (text: string): string =>
  `SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY; ${Settled.settings({ idle: 0 })}, ${inOrder}; ${text}`

/**
 * Today's claim, with other candidates: the same round trip, columns, bounds and sizes. The index on (lane, id) has every
 * row of a lane, not the pending ones alone. Left to itself the planner reads all of them into a bitmap and sorts them.
 */
export const claimText = (names: Names, lane: number, candidates: string, held: string): string => `
  ${Settled.begin("READ COMMITTED READ WRITE", { idle: 15_000 })};
  SELECT set_config('controlpublish.lanes_taken', coalesce(array_agg(lane) FILTER (WHERE taken), '{}')::text, true),
      coalesce(bool_or(taken), false) AS taken, ${inOrder}
    FROM (SELECT lane, pg_try_advisory_xact_lock(${names.laneLock}, lane) AS taken
      FROM unnest('{${lane}}'::int[]) AS lane) AS locks;
  SELECT id::text AS id, ${Columns.bounded("event_id")} AS "eventId", ${Columns.bounded("ordering_key")} AS "orderingKey",
    CASE WHEN refused IS NULL THEN payload_json::text ELSE '' END AS payload,
    CASE WHEN refused IS NULL THEN traceparent END AS traceparent,
    ${Columns.milliseconds("created_at")} AS "createdAt", attempt_count AS "attemptCount", refused,
    ${Columns.drawn(names.sequence)}::text AS drawn,
    (SELECT pg_snapshot_xmin(pg_current_snapshot())::text) AS xmin, (${held})::text AS held
  FROM (
    SELECT *, sum(bytes) OVER (ORDER BY id) - bytes AS before FROM (
      SELECT candidate.*, refused, CASE WHEN refused IS NULL THEN payload_bytes ELSE 0 END AS bytes
      FROM unnest('{${lane}}'::smallint[]) AS taken (lane)
      CROSS JOIN LATERAL (${candidates}) candidate
      CROSS JOIN LATERAL (SELECT ${Guarded.refused(names)} AS refused) bounds
      WHERE taken.lane = ANY (current_setting('controlpublish.lanes_taken')::smallint[])
      ORDER BY id LIMIT ${batch}
    ) batch
  ) measured
  WHERE before < ${4 * 1024 * 1024}
  ORDER BY measured.id`

export const claimedOf = (rows: ReadonlyArray<unknown>): Claimed => {
  const claimed = rows as ReadonlyArray<Record<"id" | "drawn" | "xmin", string> & { readonly held: string | null }>
  const [first] = claimed
  return {
    ids: claimed.map(({ id }) => id),
    drawn: first?.drawn ?? "0",
    xmin: first?.xmin ?? "0",
    held: first?.held ?? undefined
  }
}

/** Columns that say where a lane starts, and what has to end before the start can pass more. */
export const positionColumns = `
  start bigint NOT NULL DEFAULT 0,
  decided bigint NOT NULL DEFAULT 0,
  drawn bigint NOT NULL DEFAULT 0,
  fence xid8`

/**
 * A lane's next position, from the one before (`last`), in the transaction that settles a claim. All that the claim saw
 * up to `upTo` is settled. An id is decided once the transaction has ended that got its xid after the id was read
 * ("An xid decides ids", in docs/decisions), and only ids that are decided are passed.
 */
export const nextPosition = ({ drawn, held, ids, xmin }: Claimed) => {
  const passed = `coalesce(last.fence <= '${xmin}'::xid8, true)`
  const decided = `CASE WHEN last.fence <= '${xmin}'::xid8 THEN last.drawn ELSE last.decided END`
  const upTo = ids.length < batch ? drawn : ids[ids.length - 1]!
  return {
    start: `greatest(last.start, least(${decided}, ${upTo}${held === undefined ? "" : `, ${held} - 1`}))`,
    decided,
    drawn: `CASE WHEN ${passed} THEN ${drawn} ELSE last.drawn END`,
    fence: `CASE WHEN ${passed} THEN pg_current_xact_id() ELSE last.fence END`
  }
}
