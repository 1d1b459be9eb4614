import * as Bounds from "../../internal/bounds.js"
import * as Lane from "../../Lane.js"

/** Parts of SQL on the outbox's table that several modules use. */

/** Rows to be published: the condition of the pumps' indexes. */
export const pending = "published_at IS NULL AND parked_at IS NULL"

export const waiting = `${pending} AND next_attempt_at IS NOT NULL`

export const parked = "published_at IS NULL AND parked_at IS NOT NULL"

/** A column as milliseconds since the epoch, limited to the years of JavaScript and RFC 3339. */
export const milliseconds = (column: string): string =>
  `CASE WHEN ${column} > '10001-01-01' THEN ${Date.UTC(10001, 0, 1)}::float8
    WHEN ${column} < '0001-01-01' THEN ${Date.parse("0001-01-01T00:00:00Z")}::float8
    ELSE (extract(epoch FROM ${column}) * 1000::numeric)::float8 END`

const isLonger = (column: keyof typeof Bounds.textBytes): string =>
  `octet_length(${column}) > ${Bounds.textBytes[column]}`

/** A text column. Rows older than the bounds may have longer texts, which are cut. */
export const bounded = (column: keyof typeof Bounds.textBytes): string =>
  `CASE WHEN ${isLonger(column)} THEN left(${column}, ${Bounds.cutCharacters}) || '…' ELSE ${column} END`

/** The names of the cut texts, NULL if there are none. */
export const cut = `nullif(array_remove(ARRAY[${Object.entries(Bounds.shownColumns)
  .map(([name, column]) => `CASE WHEN ${isLonger(column)} THEN '${name}' END`)
  .join(", ")}], NULL), '{}')`

/** Milliseconds since the epoch as an instant. */
export const instant = (parameter: string): string => `to_timestamp(${parameter}::float8 / 1000::float8)`

/** The last id that was drawn. */
export const drawn = (sequence: string): string =>
  `(SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM ${sequence})`

export const lanes = `generate_series(0, ${Lane.count - 1}) AS lanes (lane)`

/**
 * A lane's rows in an order that only an index by lane and id provides. With `lane = …` the planner would see no order
 * by lane, and with many pending rows it would walk the whole table by id.
 */
export const inLane = (lane: string): string => `lane BETWEEN ${lane} AND ${lane}`

/** A lane's rows from an id on, in the same order. The index scan starts there and reads no earlier entry. */
export const inLaneFrom = (lane: string, start: string): string =>
  `(lane, id) >= (${lane}, ${start}) AND lane <= ${lane}`

/** The first rows of the lane `lanes.lane` in a partial index. */
export const ofLane = (outbox: string, condition: string, what: string, limit: string): string =>
  `SELECT ${what} FROM ${outbox} WHERE ${condition} AND ${inLane("lanes.lane")} ORDER BY lane, id LIMIT ${limit}`

/**
 * Counts the pending or the parked rows up to a limit. Counts lane by lane, so that the planner uses their index even
 * with outdated statistics.
 */
export const count = (outbox: string, condition: string, limit: string): string =>
  `(SELECT count(*)::int FROM (SELECT FROM ${lanes} CROSS JOIN LATERAL (${ofLane(outbox, condition, "", limit)}) rows
    LIMIT ${limit}) counted)`

/** Counts the rows that wait for a retry up to a limit. */
export const countWaiting = (outbox: string, limit: string): string =>
  `(SELECT count(*)::int FROM (SELECT FROM ${outbox} WHERE ${waiting} ORDER BY next_attempt_at LIMIT ${limit}) counted)`
