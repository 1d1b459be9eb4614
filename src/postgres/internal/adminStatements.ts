/** The statements of operators. */
import * as Bounds from "../../internal/bounds.js"
import * as Attended from "./attended.js"
import * as Audited from "./audited.js"
import * as Columns from "./columns.js"
import { drawn, instant, parked, pending } from "./columns.js"
import * as EventPages from "./eventPages.js"
import * as Guarded from "./guarded.js"
import * as Names from "./names.js"
import { strangers } from "./strangers.js"
import * as Settled from "./settled.js"

/** The number of parked events that one transaction redrives. */
const chunk = 1_000

/** Timeouts of a statement and of a wait for a lock, in milliseconds. */
const statementTimeout = 5_000
export const lockTimeout = 2_000

// Every query reads in the order of an index up to a limit. Outdated statistics must not make the planner read
// everything.
const begin = (mode: string) => `${Settled.begin(mode, { statement: statementTimeout, lock: lockTimeout, idle: 0 })};
  SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off; SET LOCAL jit = off`

export const reading = begin("REPEATABLE READ READ ONLY")

export const writing = begin("READ COMMITTED READ WRITE")

export const statements = (names: Names.Names) => {
  const { attempts, audit, outbox } = names
  const inLane = (condition: string) =>
    `(SELECT count(*)::int FROM (${Columns.ofLane(outbox, condition, "", "$2")}) counted)`
  const announce = (what: string, rows: string) =>
    `SELECT pg_notify(${Names.literal(names.channel)}, ${Names.literal(what)}) WHERE EXISTS (SELECT FROM ${rows})`
  return {
    // $1 limit, $2 limit of a lane
    overview: `
      SELECT ${drawn(names.sequence)}::float8 AS drawn, ${strangers(names)} AS strangers,
        ${Columns.count(outbox, pending, "$1")} AS pending,
        ${Columns.count(outbox, parked, "$1")} AS parked, ${Columns.countWaiting(outbox, "$1")} AS waiting,
        (SELECT coalesce(json_agg(json_build_object('lane', lane, 'pending', pending, 'parked', parked, 'head', head)
            ORDER BY lane), '[]')
          FROM (
            SELECT lanes.lane, ${inLane(pending)} AS pending, ${inLane(parked)} AS parked,
              json_strip_nulls(row_to_json(head)) AS head
            FROM ${Columns.lanes} LEFT JOIN LATERAL (
              SELECT "eventId", type, "orderingKey", "createdAt", "attemptCount", "nextAttemptAt", "lastError", cut
              FROM (SELECT ${EventPages.summary} FROM (${Columns.ofLane(outbox, pending, "*", "1")}) first) summary
            ) head ON true
          ) lanes WHERE pending > 0 OR parked > 0) AS lanes`,

    event: `
      SELECT ${EventPages.summary},
        CASE WHEN payload_bytes > ${Guarded.maxPayloadBytes(names)} THEN ''
          WHEN payload_bytes > ${Bounds.shownPayloadBytes} THEN left(payload_json::text, ${Bounds.shownCharacters})
          ELSE payload_json::text END AS payload,
        payload_bytes AS "payloadBytes",
        CASE WHEN payload_bytes > ${Bounds.shownPayloadBytes} AND payload_bytes <= ${Guarded.maxPayloadBytes(names)}
          THEN true END AS "payloadCut",
        CASE WHEN payload_bytes > ${Guarded.maxPayloadBytes(names)} THEN payload_bytes END AS "payloadOmitted",
        CASE WHEN octet_length(traceparent) <= ${Bounds.textBytes.traceparent} THEN traceparent END AS traceparent,
        (SELECT coalesce(json_agg(json_strip_nulls(json_build_object(${EventPages.attemptFields})) ORDER BY id DESC), '[]')
          FROM ${attempts} WHERE outbox_id = ${outbox}.id) AS "failedAttempts"
      FROM ${outbox} WHERE event_id = $1`,

    payload: `
      SELECT payload_bytes AS bytes, payload_bytes > ${Guarded.maxPayloadBytes(names)} AS omitted
      FROM ${outbox} WHERE event_id = $1`,

    // $1 event, $2 its first byte, $3 how many. Bytes, since the server would count all characters before a piece.
    piece: `
      SELECT substr(utf8, $2, $3) AS piece, octet_length(utf8) AS total, bytes FROM (
        SELECT convert_to(payload_json::text, 'UTF8') AS utf8, payload_bytes AS bytes
        FROM ${outbox} WHERE event_id = $1 AND payload_bytes <= ${Guarded.maxPayloadBytes(names)} OFFSET 0
      ) payload`,

    // $1 lane, $2 id, after which to look; $3 now, $4 actor, $5 reason, $6 filter, $7 its values
    redrive: (one: boolean) => `
      WITH looked AS MATERIALIZED (
        SELECT ${EventPages.columns} FROM ${outbox}
        WHERE ${parked} AND (lane, id) > ($1::smallint, $2::bigint) ${one ? "AND event_id = $7" : ""}
        ORDER BY lane, id LIMIT ${chunk}
      ), redriven AS (
        UPDATE ${outbox} SET parked_at = NULL, next_attempt_at = NULL, attempt_count = 0
        WHERE id = ANY (ARRAY(SELECT id FROM looked WHERE ${EventPages.matches(7)})) AND ${parked}
        RETURNING id
      ), audited AS (
        INSERT INTO ${audit} (at, action, actor, reason, event_id, filter, affected)
        SELECT ${instant("$3")}, 'redrive', $4, $5, $7, $6::json, affected
        FROM (SELECT count(*)::int AS affected FROM redriven) counted WHERE affected > 0
      ), announced AS (${announce("redrive", "redriven")})
      SELECT (SELECT count(*)::int FROM redriven) AS redriven, lane, id
      FROM looked LEFT JOIN announced ON true ORDER BY lane DESC, id DESC LIMIT 1`,

    // A pump that publishes from the lane holds its lock. A waiter gets it before the next pump.
    lockLane: `SELECT pg_advisory_xact_lock(${names.laneLock}, lane) FROM ${outbox} WHERE event_id = $1`,

    state: `SELECT ${EventPages.state} AS state FROM ${outbox} WHERE event_id = $1`,

    // $1 event, $2 now, $3 actor, $4 reason, $5 error
    park: `
      WITH done AS (
        UPDATE ${outbox} SET parked_at = ${instant("$2")}, next_attempt_at = NULL, last_error = $5
        WHERE event_id = $1 AND ${pending} RETURNING event_id
      ), announced AS (${announce("park", "done")})
      INSERT INTO ${audit} (at, action, actor, reason, event_id)
      SELECT ${instant("$2")}, 'park', $3, $4, event_id FROM done LEFT JOIN announced ON true RETURNING id`,

    // $1 event, $2 now, $3 actor, $4 reason
    discard: `
      WITH done AS (
        DELETE FROM ${outbox} WHERE event_id = $1 AND published_at IS NULL RETURNING *
      ), forgotten AS (
        DELETE FROM ${attempts} WHERE outbox_id IN (SELECT id FROM done)
      ), announced AS (${announce("discard", "done")})
      INSERT INTO ${audit} (at, action, actor, reason, event_id, discarded)
      SELECT ${instant("$2")}, 'discard', $3, $4, event_id,
        CASE WHEN ${Guarded.isBeyond(names)} THEN json_build_object('id', id,
          ${Object.keys(Bounds.textBytes)
            .map((column) => `'${column}', ${Columns.bounded(column as keyof typeof Bounds.textBytes)}`)
            .join(", ")},
          'payload_bytes', payload_bytes, 'payload_omitted', true) ELSE row_to_json(done) END
      FROM done LEFT JOIN announced ON true
      RETURNING id`,

    // $1 event, $2 now, $3 actor, $4 reason
    erase: `
      WITH published AS MATERIALIZED (
        SELECT id, ${Audited.markerOf(names)}(event) AS made FROM ${outbox} event
        WHERE event_id = $1 AND published_at IS NOT NULL
      ), erased AS (
        UPDATE ${outbox} event SET payload_json = made -> 'marker', last_error = NULL
        FROM published WHERE event.id = published.id AND published_at IS NOT NULL
        RETURNING event.id, published_control_version::float8 AS version, made ->> 'artifact_ref' AS artifact
      ), forgotten AS (
        DELETE FROM ${attempts} WHERE outbox_id IN (SELECT id FROM erased)
      ), kept AS (
        UPDATE ${audit} SET discarded = ${Audited.erasedRow(names)}(discarded,
          json_build_object('event_id', event_id, 'erased', true))
        WHERE event_id = $1 AND discarded IS NOT NULL AND discarded::text LIKE '%"payload_json"%' RETURNING id
      )
      INSERT INTO ${audit} (at, action, actor, reason, event_id, affected)
      SELECT ${instant("$2")}, 'erase', $3, $4, $1, 1 WHERE EXISTS (SELECT FROM erased) OR EXISTS (SELECT FROM kept)
      RETURNING (SELECT version FROM erased) AS "controlVersion", (SELECT artifact FROM erased) AS "artifactRef"`,

    identity: `SELECT system_identifier::text AS server, current_database() AS database FROM pg_control_system()`,

    // $1 id, $2 report
    attend: `
      WITH forgotten AS (
        DELETE FROM ${Attended.pumps(names)} WHERE seen_at < clock_timestamp() - interval '1 hour' AND id <> $1
      )
      INSERT INTO ${Attended.pumps(names)} AS pump (id, seen_at, report) VALUES ($1, clock_timestamp(), $2)
      ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, report = excluded.report`,

    leave: `DELETE FROM ${Attended.pumps(names)} WHERE id = $1`,

    pumps: `
      SELECT report, ${Columns.milliseconds("seen_at")} AS "seenAt",
        seen_at < clock_timestamp() - interval '${Attended.lostAfter} s' AS lost
      FROM ${Attended.pumps(names)} ORDER BY (report ->> 'startedAt')::float8, id LIMIT 100`,

    record: `INSERT INTO ${audit} (at, action, actor, reason, affected, event_id)
      VALUES (${instant("$1")}, $2, $3, $4, $5, $6)`,

    // $1 cursor, $2 limit
    audit: (changesOnly: boolean) => `
      SELECT id, floor(extract(epoch FROM at) * 1000)::float8 AS at, action, actor, reason,
        ${Columns.bounded("event_id")} AS "eventId", filter,
        affected
      FROM ${audit} WHERE ($1::bigint IS NULL OR id < $1)
        ${changesOnly ? "AND action NOT IN ('read', 'refused')" : ""} ORDER BY id DESC LIMIT $2`
  }
}
