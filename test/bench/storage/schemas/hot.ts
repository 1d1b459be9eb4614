import type * as Pg from "pg"
import { inLaneFrom, instant } from "../../../../src/postgres/internal/columns.js"
import { integers, type Names } from "../../../../src/postgres/internal/names.js"
import { script, type Look, type Variant, type Worker } from "../variant.js"
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

const lanes = (names: Names) => beside(names, "control_events_lanes")

/**
 * No index knows `published_at`. A publish changes no indexed column, as `next_attempt_at` and `parked_at` stay NULL, and
 * its new row version has room on the page.
 */
export const indexes = ({ outbox }: Names, table = outbox): string => `
CREATE INDEX control_events_outbox_lane ON ${table} (lane, id);
CREATE INDEX control_events_outbox_waits ON ${table} ((lane::int), id) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX control_events_outbox_parks ON ${table} (lane, id) WHERE parked_at IS NOT NULL;
`

export const dropIndexes = (names: Names): string =>
  ["pending", "waiting", "parked"]
    .map((name) => `DROP INDEX ${beside(names, `control_events_outbox_${name}`)};`)
    .join("")

/**
 * A row that is made pending by hand lies before its lane's start: it gets a next attempt, by which it is found. An AFTER
 * trigger whose WHEN is false queues nothing; a BEFORE trigger would lock every row that is published.
 */
const reopened = (names: Names): string => `
CREATE FUNCTION ${beside(names, "control_events_outbox_reopened")}() RETURNS trigger LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE ${names.outbox} SET next_attempt_at = now() WHERE id = NEW.id;
  RETURN NULL;
END $$;
CREATE TRIGGER control_events_outbox_reopened AFTER UPDATE OF published_at, parked_at, next_attempt_at ON ${names.outbox}
  FOR EACH ROW WHEN (NEW.published_at IS NULL AND NEW.parked_at IS NULL AND NEW.next_attempt_at IS NULL)
  EXECUTE FUNCTION ${beside(names, "control_events_outbox_reopened")}();
`

const pending = "published_at IS NULL AND parked_at IS NULL"

const waitingKeys = (names: Names, now: string) =>
  `SELECT ordering_key FROM ${names.outbox} WHERE ${pending} AND next_attempt_at > ${instant(now)}`

/** Rows from the start on, and those before it that wait: the start passes whatever an index of its own has. */
const candidates = (names: Names, lane: number): string => {
  const now = String(Date.now())
  const start = `(SELECT start FROM ${lanes(names)} WHERE lane = ${lane})`
  const publishable = `ordering_key NOT IN (${waitingKeys(names, now)})`
  return `
    (SELECT ${claimedColumns("main", "attempt_count")} FROM ${names.outbox} main
      WHERE ${pending} AND (lane, id) > (${lane}, ${start}) AND lane <= ${lane} AND ${publishable}
      ORDER BY lane, id LIMIT 500)
    UNION ALL
    (SELECT ${claimedColumns("waited", "attempt_count")} FROM ${names.outbox} waited
      WHERE ${pending} AND next_attempt_at <= ${instant(now)} AND lane::int BETWEEN ${lane} AND ${lane}
        AND id <= ${start} AND ${publishable}
      ORDER BY lane::int, id LIMIT 500)`
}

/** The first row behind one that waits. Without waiting keys nothing is looked at. */
const held = (names: Names, lane: number): string => {
  const keys = waitingKeys(names, String(Date.now()))
  return `SELECT CASE WHEN EXISTS (${keys}) THEN (
    SELECT id FROM ${names.outbox} held WHERE ${pending} AND next_attempt_at IS NULL
      AND (lane, id) > (${lane}, (SELECT start FROM ${lanes(names)} WHERE lane = ${lane})) AND lane <= ${lane}
      AND ordering_key IN (${keys}) ORDER BY lane, id LIMIT 1) END`
}

const worker = (client: Pg.Client, names: Names): Worker => ({
  claim: async (lane) => {
    const results = await script(client, claimText(names, lane, candidates(names, lane), held(names, lane)))
    const claimed = claimedOf(results.at(-1)!)
    if (claimed.ids.length === 0) await client.query("ROLLBACK")
    return claimed
  },
  settle: async (lane, claimed, versions) => {
    const next = nextPosition(claimed)
    const now = instant(String(Date.now()))
    await script(
      client,
      `WITH written AS (
        UPDATE ${names.outbox} SET published_control_version = result.version, published_at = ${now},
          attempt_count = attempt_count + 1, last_attempt_at = ${now}, next_attempt_at = NULL, parked_at = NULL
        FROM unnest('${integers(claimed.ids)}'::bigint[], '${integers(versions)}'::bigint[]) AS result (id, version)
        WHERE ${names.outbox}.id = result.id
      )
      UPDATE ${lanes(names)} last SET start = ${next.start}, decided = ${next.decided}, drawn = ${next.drawn},
        fence = ${next.fence} WHERE lane = ${lane};
      COMMIT`
    )
  },
  release: async () => {
    await client.query("ROLLBACK")
  }
})

const lookAt = (names: Names, starts: string) => {
  const now = String(Date.now())
  return `
  SELECT pg_snapshot_xmin(pg_current_snapshot()), count(*) AS lanes FROM (
    SELECT lanes.lane, first.id, EXISTS (SELECT FROM ${names.outbox} other
        WHERE ${pending} AND ${inLaneFrom("lanes.lane", "first.id")} ORDER BY lane, id OFFSET 31 LIMIT 1) AS crowded
    FROM ${starts} lanes
    CROSS JOIN LATERAL (
      (SELECT id FROM ${names.outbox} main WHERE ${pending} AND ${inLaneFrom("lanes.lane", "lanes.start + 1")}
        AND ordering_key NOT IN (${waitingKeys(names, now)}) ORDER BY lane, id LIMIT 1)
      UNION ALL
      (SELECT id FROM ${names.outbox} waited WHERE ${pending} AND next_attempt_at <= ${instant(now)}
        AND lane::int BETWEEN lanes.lane AND lanes.lane AND id <= lanes.start
        AND ordering_key NOT IN (${waitingKeys(names, now)}) ORDER BY lane::int, id LIMIT 1)
      LIMIT 1
    ) first
  ) found`
}

const look = (client: Pg.Client, names: Names): Look => {
  const run = async () =>
    Number(((await script(client, lookText(lookAt(names, lanes(names))))).at(-1)![0] as { lanes: string }).lanes)
  // The starts are in the table: who has just started looks as everybody does.
  return { fresh: run, learnt: run }
}

const create = (names: Names): string => `${dropIndexes(names)}${indexes(names)}
    ALTER TABLE ${names.outbox} SET (fillfactor = 60);
    CREATE TABLE ${lanes(names)} (lane smallint PRIMARY KEY, ${positionColumns}) WITH (fillfactor = 20);
    INSERT INTO ${lanes(names)} (lane) SELECT generate_series(0, ${laneCount - 1});`

export const hot: Variant = {
  name: "hot",
  title: "a HOT update a row",
  create: (names) => create(names) + reopened(names),
  tables: (names) => [names.outbox, lanes(names)],
  worker,
  look,
  fail: ({
    outbox
  }) => `UPDATE ${outbox} SET next_attempt_at = $2, parked_at = CASE WHEN $2::timestamptz IS NULL THEN now() END
    WHERE event_id = $1`,
  // What has a next attempt is looked for before the start, too.
  redrive: ({ outbox }) => `UPDATE ${outbox} SET parked_at = NULL, next_attempt_at = now() WHERE event_id = $1`,
  reopen: ({ outbox }) =>
    `UPDATE ${outbox} SET published_at = NULL, published_control_version = NULL WHERE event_id = $1`,
  remove: ({ outbox }) => `DELETE FROM ${outbox} WHERE id BETWEEN $1 AND $2`,
  publishAll: (names) => `
    UPDATE ${lanes(names)} SET start = (SELECT max(id) FROM ${names.outbox}), decided = (SELECT max(id) FROM ${names.outbox})`,
  parkHeads: ({ outbox }) => `UPDATE ${outbox} SET parked_at = now(), last_error = 'parked', attempt_count = 1
    WHERE id IN (SELECT min(id) FROM ${outbox} WHERE published_at IS NULL GROUP BY lane)`
}

/** Without the trigger, to see what it costs. */
export const unguarded: Variant = {
  ...hot,
  name: "unguarded",
  title: "a HOT update a row, without its trigger",
  create
}
