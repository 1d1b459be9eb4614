import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Retention } from "../../OutboxAdmin.js"
import type { OutboxError } from "../../OutboxStore.js"
import { drawn, instant } from "./columns.js"
import type { Names } from "./names.js"
import type { Session } from "./session.js"

/** Rows that one look reads. */
const window = 10_000

/** The number of looks without success, after the first one, that ends a run. */
const patience = 5

/** Rows that are counted at a time to find the newest ones. */
const counted = 100_000

const statements = (names: Names) => ({
  lock: `SELECT pg_try_advisory_xact_lock(${names.orderLock}, -2) AS taken, ${drawn(names.sequence)} AS drawn`,

  // $1 after this id, $2 up to this one, $3 published by then, NULL for any time, $4 limit
  prune: `
    WITH looked AS MATERIALIZED (
      SELECT id, published_at, parked_at FROM ${names.outbox} WHERE id > $1 AND id <= $2 ORDER BY id LIMIT ${window}
    ), doomed AS MATERIALIZED (
      SELECT id FROM looked WHERE published_at <= coalesce(${instant("$3")}, 'infinity') ORDER BY id LIMIT $4
    ), gone AS (
      DELETE FROM ${names.outbox} WHERE id = ANY (ARRAY(SELECT id FROM doomed))
        AND published_at <= coalesce(${instant("$3")}, 'infinity')
      RETURNING id
    ), forgotten AS (
      DELETE FROM ${names.attempts} WHERE outbox_id = ANY (ARRAY(SELECT id FROM gone))
    )
    SELECT (SELECT count(*)::int FROM gone) AS removed,
      (SELECT max(id) FROM doomed) AS "lastDoomed",
      (SELECT max(id) FROM looked) AS "lastLooked",
      (SELECT count(*) = ${window} FROM looked) AS full,
      (SELECT coalesce(bool_and(published_at IS NULL AND parked_at IS NOT NULL), false) FROM looked) AS "allParked"`,

  // $1 before this id
  count: `
    SELECT count(published_at)::int AS published, count(*)::int AS looked, min(id) AS lowest
    FROM (SELECT id, published_at FROM ${names.outbox} WHERE id < $1 ORDER BY id DESC LIMIT ${counted}) newest`,

  // $1 before this id, $2 after so many published rows
  boundary: `
    SELECT id FROM ${names.outbox} WHERE id < $1 AND published_at IS NOT NULL ORDER BY id DESC OFFSET $2 LIMIT 1`
})

const largest = 2n ** 63n - 1n

interface Pruned {
  readonly removed: number
  readonly lastDoomed: string | null
  readonly lastLooked: string | null
  readonly full: boolean
  readonly allParked: boolean
}

/**
 * Removes rows in the order of their ids, a batch at a time, from where the last batch ended: the index entries of rows
 * that are gone stay until they are vacuumed, and would be stepped over again and again.
 *
 * A run has two parts. The *front* is where almost all rows are that can go: it stops before the first rows that cannot,
 * and the next run begins there. Rows behind it (parked then, and published since) and old rows behind young ones (that
 * were published late) are found by *roving* over the whole table, in a few looks a run.
 */
export const make = (names: Names) => {
  const text = statements(names)
  let roving: boolean | undefined
  let front = 0n
  let rover = 0n
  let failures = 0
  let newest: { readonly count: number; readonly boundary: bigint; readonly until: bigint } | undefined

  const end = { removed: 0, more: false }

  /** The id of the newest row that is not among the newest published ones. */
  const findBoundary = (session: Session, count: number, drawn: bigint) =>
    Effect.gen(function* () {
      // It moves by no more than what was drawn since. To find it costs as many reads as rows are kept.
      if (newest?.count === count && drawn < newest.until) return newest.boundary
      let published = 0
      let unpublished = 0
      let from = largest
      for (;;) {
        const [row] = yield* session.query<{ published: number; looked: number; lowest: string | null }>(text.count, [
          String(from)
        ])
        if (row === undefined) break
        unpublished += row.looked - row.published
        if (published + row.published > count) break
        published += row.published
        if (row.looked < counted) {
          newest = { count, boundary: 0n, until: drawn + BigInt(unpublished > 0 ? 0 : count - published + 1) }
          return 0n
        }
        from = BigInt(row.lowest!)
      }
      const [row] = yield* session.query<{ id: string }>(text.boundary, [String(from), count - published])
      const boundary = BigInt(row?.id ?? 0)
      // Rows that were not published then are counted again.
      newest = { count, boundary, until: drawn + BigInt(unpublished > 0 ? 0 : Math.ceil(count / 10)) }
      return boundary
    })

  /** Runs in a transaction. */
  return (
    session: Session,
    retention: Retention,
    limit: number
  ): Effect.Effect<{ readonly removed: number; readonly more: boolean }, OutboxError> =>
    Effect.gen(function* () {
      const [lock] = yield* session.query<{ taken: boolean; drawn: string }>(text.lock)
      if (lock?.taken !== true) return end
      const now = yield* Clock.currentTimeMillis
      const upTo =
        retention._tag === "Age"
          ? largest
          : roving === undefined || newest?.count !== retention.count
            ? yield* findBoundary(session, retention.count, BigInt(lock.drawn))
            : newest.boundary
      const publishedBy = retention._tag === "Age" ? now - Duration.toMillis(retention.age) : null
      roving ??= false
      const [found] = yield* session.query<Pruned>(text.prune, [
        String(roving ? rover : front),
        String(upTo),
        publishedBy,
        limit
      ])
      const { allParked, full, lastDoomed, lastLooked, removed } = found!
      if (lastDoomed !== null) {
        if (roving) rover = BigInt(lastDoomed)
        else front = BigInt(lastDoomed)
        return { removed, more: true }
      }
      if (!roving && full && allParked) {
        front = BigInt(lastLooked!)
        return { removed, more: true }
      }
      if (!roving) {
        roving = true
        failures = 0
        return { removed, more: true }
      }
      rover = full ? BigInt(lastLooked!) : 0n
      failures++
      if (full && failures < patience) return { removed, more: true }
      roving = undefined
      return end
    })
}
