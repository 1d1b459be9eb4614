import * as Effect from "effect/Effect"
import * as Struct from "effect/Struct"
import * as Lane from "../../Lane.js"
import type { EventFilter, EventPage, EventSummary, PageOptions } from "../../OutboxAdmin.js"
import { maxErrorLength, type OutboxError } from "../../OutboxStore.js"
import { bounded, cut, inLane, instant, milliseconds, parked, pending, waiting } from "./columns.js"
import type { Names } from "./names.js"
import type { Session } from "./session.js"

/** Rows that a page reads if no index serves its filter. */
const window = 20_000

/** All columns except the payload, which may be large. */
export const columns = `id, event_id, event_type, tenant_id, stack_id, ordering_key, lane, created_at, attempt_count, last_error,
  last_attempt_at, next_attempt_at, parked_at, published_control_version, published_at`

export const state = `CASE WHEN published_at IS NOT NULL THEN 'published' WHEN parked_at IS NOT NULL THEN 'parked'
  WHEN next_attempt_at IS NOT NULL THEN 'waiting' ELSE 'pending' END`

/** An instant as operators see it: whole milliseconds. */
const at = (column: string) => `floor(${milliseconds(column)})`

export const attemptFields = `'at', ${at("at")}, 'error', left(error, ${maxErrorLength}), 'nextAttemptAt', ${at("next_attempt_at")}`

export const summary = `${bounded("event_id")} AS "eventId", ${bounded("event_type")} AS type,
  ${bounded("tenant_id")} AS "tenantId", ${bounded("stack_id")} AS "stackId", ${bounded("ordering_key")} AS "orderingKey", lane, ${state} AS state, ${at("created_at")} AS "createdAt",
  attempt_count AS "attemptCount", last_error AS "lastError", ${at("last_attempt_at")} AS "lastAttemptAt",
  ${at("next_attempt_at")} AS "nextAttemptAt", ${at("parked_at")} AS "parkedAt",
  published_control_version::float8 AS "controlVersion", ${at("published_at")} AS "publishedAt", ${cut} AS cut`

/** Whether a row matches a filter. The filter's values begin at the parameter `$first`. */
export const matches = (first: number): string => {
  const [eventId, type, tenantId, orderingKey, wanted, since, until] = Array.from(
    { length: 7 },
    (_, index) => `$${first + index}`
  )
  return `(${eventId}::text IS NULL OR event_id = ${eventId})
    AND (${type}::text IS NULL OR event_type = ${type})
    AND (${tenantId}::text IS NULL OR tenant_id = ${tenantId})
    AND (${orderingKey}::text IS NULL OR ordering_key = ${orderingKey})
    AND (${wanted}::text IS NULL OR ${state} = ${wanted} OR (${wanted} = 'pending' AND ${state} = 'waiting'))
    AND (${since}::float8 IS NULL OR created_at >= ${instant(since!)})
    AND (${until}::float8 IS NULL OR created_at < ${instant(until!)})`
}

export const values = (filter: EventFilter): ReadonlyArray<unknown> => [
  filter.eventId,
  filter.type,
  filter.tenantId,
  filter.orderingKey,
  filter.state,
  filter.since,
  filter.until
]

/** NULL is absent. */
export const defined = <A extends object>(row: A): A =>
  Object.fromEntries(Object.entries(row).filter(([, value]) => value !== null)) as A

/** Where a page reads: in parts, each in the order of an index and at most `rows`. */
interface Source {
  readonly parts: string
  readonly rows: number
  readonly where: string
  readonly order: string
}

// $1 cursor, $2 limit, $3 the filter's values
const statement = (names: Names, { order, parts, rows, where }: Source): string => `
  WITH looked AS MATERIALIZED (
    SELECT parts.part, candidate.* FROM ${parts} AS parts (part)
    CROSS JOIN LATERAL (
      SELECT ${columns} FROM ${names.outbox} WHERE ${where} ORDER BY ${order} LIMIT ${rows}
    ) candidate
  ), horizon AS (
    -- Above it every part was looked at.
    SELECT coalesce(max(lowest), 0) AS id
    FROM (SELECT min(id) AS lowest FROM looked GROUP BY part HAVING count(*) >= ${rows}) cut
  )
  SELECT horizon.id AS horizon, found.* FROM horizon LEFT JOIN LATERAL (
    SELECT id, ${summary} FROM looked
    WHERE looked.id >= horizon.id AND ${matches(3)} AND ($1::bigint IS NULL OR looked.id < $1)
    ORDER BY looked.id DESC LIMIT $2
  ) found ON true
  ORDER BY found.id DESC`

const before = "($1::bigint IS NULL OR id < $1)"

const byId: Source = { parts: "(VALUES (0))", rows: 2, where: "event_id = $3", order: "id" }

/** The newest rows. */
const newest = (rows: number): Source => ({ parts: "(VALUES (0))", rows, where: before, order: "id DESC" })

/** The newest rows of each lane that an index holds. */
const ofLanes = (where: string, ofKey: boolean, rows: number): Source => ({
  parts: ofKey
    ? `(VALUES (hashtext($6::text COLLATE "C") & ${Lane.count - 1}))`
    : `generate_series(0, ${Lane.count - 1})`,
  rows,
  where: `${where} AND ${inLane("parts.part")} AND ${before}`,
  order: "lane DESC, id DESC"
})

/** All waiting rows, if they are few. */
const allWaiting: Source = { parts: "(VALUES (0))", rows: window, where: waiting, order: "next_attempt_at" }

interface Row extends EventSummary {
  readonly horizon: string
  /** NULL where the page is empty. */
  readonly id: string | null
}

/** Reads pages of events. The session is in a transaction that sees one snapshot. */
export const make =
  (names: Names) =>
  (session: Session, filter: EventFilter, { cursor, limit }: PageOptions): Effect.Effect<EventPage, OutboxError> => {
    const look = (source: Source) =>
      session.query<Row>(statement(names, source), [cursor, limit + 1, ...values(filter)])

    const looksInto =
      filter.type !== undefined ||
      filter.tenantId !== undefined ||
      filter.orderingKey !== undefined ||
      filter.since !== undefined ||
      filter.until !== undefined

    const rows = Effect.gen(function* () {
      if (filter.eventId !== undefined) return yield* look(byId)
      if (filter.state === "waiting") {
        const found = yield* look(allWaiting)
        if (found[0]?.horizon === "0") return found
      }
      if (filter.state === undefined) return yield* look(newest(looksInto ? window : limit + 1))
      if (filter.state === "published") return yield* look(newest(window))
      const ofKey = filter.orderingKey !== undefined
      const index = filter.state === "parked" ? parked : pending
      const perLane = ofKey ? window : Math.ceil(window / Lane.count)
      return yield* look(ofLanes(index, ofKey, looksInto || filter.state === "waiting" ? perLane : limit + 1))
    })

    return Effect.map(rows, (rows) => {
      const horizon = rows[0]?.horizon ?? "0"
      const found = rows.filter(({ id }) => id !== null)
      const events = found.slice(0, limit).map((row) => defined(Struct.omit(row, "horizon", "id")))
      const next = found.length > limit ? found[limit - 1]!.id! : horizon
      return next === "0" ? { events } : { events, next }
    })
  }
