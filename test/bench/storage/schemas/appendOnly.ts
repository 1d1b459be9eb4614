import type * as Pg from "pg"
import { instant } from "../../../../src/postgres/internal/columns.js"
import type { Names } from "../../../../src/postgres/internal/names.js"
import { batch, script, type Claimed, type Look, type Worker } from "../variant.js"
import {
  beside,
  claimedColumns,
  claimedOf,
  claimText,
  laneCount,
  lookText,
  nextPosition,
  positionColumns
} from "./rows.js"

/** Failures, waiting and parked events: what the lanes' starts pass although it is not published. */
export const exceptions = (names: Names) => beside(names, "control_events_exceptions")

/** A receipt for each batch: the newest of a lane has its position. */
export const receipts = (names: Names) => beside(names, "control_events_receipts")

export const createExceptions = (names: Names): string => `
CREATE TABLE ${exceptions(names)} (
  id bigint PRIMARY KEY,
  lane smallint NOT NULL,
  ordering_key text COLLATE "C" NOT NULL,
  attempt_count integer NOT NULL DEFAULT 0,
  last_error text,
  last_attempt_at timestamptz,
  -- NULL: nothing is to be tried, as the event is parked, or published meanwhile.
  next_attempt_at timestamptz,
  parked_at timestamptz
);
CREATE INDEX control_events_exceptions_open ON ${exceptions(names)} (lane, id)
  WHERE next_attempt_at IS NOT NULL OR parked_at IS NOT NULL;
`

export const createReceipts = (names: Names, columns: string): string => `
CREATE TABLE ${receipts(names)} (
  lane smallint NOT NULL,
  seq bigint NOT NULL,
  last_id bigint NOT NULL,
  published_at timestamptz NOT NULL,
  ${columns}
  ${positionColumns},
  PRIMARY KEY (lane, seq)
);
INSERT INTO ${receipts(names)} (lane, seq, last_id, published_at)
  SELECT lane, 0, 0, now() FROM generate_series(0, ${laneCount - 1}) lane;
`

/** What an append-only variant adds. */
export interface Parts {
  /** Where the rows are, qualified. */
  readonly rows: (names: Names) => string
  /** The ids of a lane that were published above its start; both are SQL. */
  readonly publishedAbove: (names: Names, lane: string, start: string) => string
  /** Columns of a receipt and their values, and statements before it, as parts of a WITH. */
  readonly record: (
    names: Names,
    lane: number,
    claimed: Claimed,
    versions: ReadonlyArray<number>,
    now: string
  ) => { readonly columns: string; readonly values: string; readonly written?: string }
}

const startOf = (names: Names, lane: string) =>
  `(SELECT start FROM ${receipts(names)} WHERE lane = ${lane} ORDER BY lane DESC, seq DESC LIMIT 1)`

const blockedKeys = (names: Names, lane: string, now: string) =>
  `SELECT ordering_key FROM ${exceptions(names)} WHERE lane = ${lane} AND next_attempt_at > ${instant(now)}`

const openExceptions = (names: Names, lane: string) =>
  `SELECT id FROM ${exceptions(names)} WHERE lane = ${lane} AND (next_attempt_at IS NOT NULL OR parked_at IS NOT NULL)`

const main = (names: Names, { publishedAbove, rows }: Parts, lane: string, start: string, now: string, limit: string) =>
  `SELECT ${claimedColumns("main", "0")} FROM ${rows(names)} main
    WHERE published_at IS NULL AND (lane, id) > (${lane}, ${start}) AND lane <= ${lane}
      AND id NOT IN (${publishedAbove(names, lane, start)})
      AND id NOT IN (${openExceptions(names, lane)})
      AND ordering_key NOT IN (${blockedKeys(names, lane, now)})
    ORDER BY lane, id LIMIT ${limit}`

const due = (names: Names, { rows }: Parts, lane: string, now: string, limit: string) =>
  `SELECT ${claimedColumns("late", "exception.attempt_count")}
    FROM ${exceptions(names)} exception JOIN ${rows(names)} late USING (id)
    WHERE exception.lane = ${lane} AND exception.parked_at IS NULL AND exception.next_attempt_at <= ${instant(now)}
      AND exception.ordering_key NOT IN (${blockedKeys(names, lane, now)})
    ORDER BY exception.lane, exception.id LIMIT ${limit}`

export const candidates = (names: Names, parts: Parts, lane: string): string => {
  const now = String(Date.now())
  const limit = String(batch)
  return `(${main(names, parts, lane, startOf(names, lane), now, limit)})
    UNION ALL (${due(names, parts, lane, now, limit)})`
}

/** The first row behind one that waits. Without waiting keys nothing is looked at. */
const held = (names: Names, { publishedAbove, rows }: Parts, lane: string): string => {
  const keys = blockedKeys(names, lane, String(Date.now()))
  const start = startOf(names, lane)
  return `SELECT CASE WHEN EXISTS (${keys}) THEN (
    SELECT id FROM ${rows(names)} held WHERE published_at IS NULL AND (lane, id) > (${lane}, ${start}) AND lane <= ${lane}
      AND id NOT IN (${publishedAbove(names, lane, start)}) AND id NOT IN (${openExceptions(names, lane)})
      AND ordering_key IN (${keys}) ORDER BY lane, id LIMIT 1) END`
}

export const fail =
  ({ rows }: Parts) =>
  (names: Names): string => `
  INSERT INTO ${exceptions(names)} AS exception (id, lane, ordering_key, attempt_count, next_attempt_at, parked_at)
  SELECT id, lane, ordering_key, 1, $2::timestamptz, CASE WHEN $2::timestamptz IS NULL THEN now() END
  FROM ${rows(names)} WHERE event_id = $1
  ON CONFLICT (id) DO UPDATE SET attempt_count = exception.attempt_count + 1, next_attempt_at = excluded.next_attempt_at,
    parked_at = excluded.parked_at`

export const redrive =
  ({ rows }: Parts) =>
  (names: Names): string => `
  UPDATE ${exceptions(names)} exception SET parked_at = NULL, next_attempt_at = now()
  FROM ${rows(names)} event WHERE event.event_id = $1 AND exception.id = event.id`

/** The statements that settle a batch, without the COMMIT. */
export const settleText = (
  names: Names,
  parts: Parts,
  lane: number,
  claimed: Claimed,
  versions: ReadonlyArray<number>
): string => {
  const next = nextPosition(claimed)
  const now = instant(String(Date.now()))
  const { columns, values, written } = parts.record(names, lane, claimed, versions, now)
  // Seldom: an exception that was published keeps its count and its error.
  return `WITH ended AS (
      UPDATE ${exceptions(names)} SET next_attempt_at = NULL, last_attempt_at = ${now}
      WHERE lane = ${lane} AND next_attempt_at IS NOT NULL AND id = ANY ('{${claimed.ids.join()}}'::bigint[])
    )${written === undefined ? "" : `, ${written}`}
    INSERT INTO ${receipts(names)} (lane, seq, last_id, published_at, ${columns} start, decided, drawn, fence)
    SELECT lane, seq + 1, ${claimed.ids.at(-1)!}, ${now}, ${values} ${next.start}, ${next.decided}, ${next.drawn}, ${next.fence}
    FROM ${receipts(names)} last WHERE lane = ${lane} ORDER BY lane DESC, seq DESC LIMIT 1`
}

export const worker =
  (parts: Parts) =>
  (client: Pg.Client, names: Names): Worker => ({
    claim: async (lane) => {
      const results = await script(
        client,
        claimText(names, lane, candidates(names, parts, String(lane)), held(names, parts, String(lane)))
      )
      const claimed = claimedOf(results.at(-1)!)
      if (claimed.ids.length === 0) await client.query("ROLLBACK")
      return claimed
    },
    settle: async (lane, claimed, versions) => {
      await script(client, `${settleText(names, parts, lane, claimed, versions)}; COMMIT`)
    },
    release: async () => {
      await client.query("ROLLBACK")
    }
  })

export const look =
  (parts: Parts) =>
  (client: Pg.Client, names: Names): Look => {
    const text = () => {
      const now = String(Date.now())
      return `
      SELECT pg_snapshot_xmin(pg_current_snapshot()), count(*) AS lanes FROM (
        SELECT lanes.lane, first.id, EXISTS (SELECT FROM ${parts.rows(names)} other
          WHERE published_at IS NULL AND (lane, id) >= (lanes.lane, first.id) AND lane <= lanes.lane
          ORDER BY lane, id OFFSET 31 LIMIT 1) AS crowded
        FROM (SELECT lane::smallint, ${startOf(names, "lane")} AS start
          FROM generate_series(0, ${laneCount - 1}) lane OFFSET 0) lanes
        CROSS JOIN LATERAL (
          (SELECT id FROM (${main(names, parts, "lanes.lane", "lanes.start", now, "1")}) found)
          UNION ALL
          (SELECT id FROM (${due(names, parts, "lanes.lane", now, "1")}) found)
          LIMIT 1
        ) first
      ) found`
    }
    const run = async () => Number(((await script(client, lookText(text()))).at(-1)![0] as { lanes: string }).lanes)
    return { fresh: run, learnt: run }
  }

export const parkHeads = (names: Names, { rows }: Parts): string => `
  INSERT INTO ${exceptions(names)} (id, lane, ordering_key, attempt_count, last_error, parked_at)
  SELECT DISTINCT ON (lane) id, lane, ordering_key, 1, 'parked', now() FROM ${rows(names)} ORDER BY lane, id`
