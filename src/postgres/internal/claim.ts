import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { ClaimedRow, ClaimOptions, FollowingOptions, OutboxError, OutboxStore } from "../../OutboxStore.js"
import * as Columns from "./columns.js"
import { inLaneFrom, milliseconds, pending } from "./columns.js"
import * as Guarded from "./guarded.js"
import { integers } from "./names.js"
import type * as Names from "./names.js"
import type * as Positions from "./positions.js"
import { publishable as publishableIn } from "./publishable.js"
import { rollback, type Session } from "./session.js"
import * as Settled from "./settled.js"
import * as WriteBack from "./writeBack.js"

/** How much longer the server keeps a lane than its holder uses it, in milliseconds. */
const holdMargin = 5_000

interface ClaimRow extends Omit<ClaimedRow, "traceparent" | "refused"> {
  readonly traceparent: string | null
  readonly refused: string | null
  readonly drawn: string
}

/** The rows that a claim has returned. */
interface Handed {
  readonly lanes: ReadonlyArray<number>
  /** Where each lane was read from. */
  readonly starts: ReadonlyArray<string>
  last: bigint
  /** Those that are not recorded yet. */
  readonly unrecorded: Set<string>
}

const statements = (names: Names.Names) => {
  const { outbox } = names
  const drawn = `${Columns.drawn(names.sequence)}::text`
  const publishable = publishableIn(outbox)
  /** The first publishable rows of those of the lanes that are taken. */
  const rows = (
    lanes: ReadonlyArray<number>,
    starts: ReadonlyArray<string>,
    { afterParked, limit, maxBytes, now }: FollowingOptions
  ) => `
      SELECT id::text AS id, ${Columns.bounded("event_id")} AS "eventId", ${Columns.bounded("ordering_key")} AS "orderingKey",
        CASE WHEN refused IS NULL THEN payload_json::text ELSE '' END AS payload,
        CASE WHEN refused IS NULL THEN traceparent END AS traceparent,
        ${milliseconds("created_at")} AS "createdAt", attempt_count AS "attemptCount", refused, ${drawn} AS drawn
      FROM (
        SELECT *, sum(bytes) OVER (ORDER BY id) - bytes AS before FROM (
          SELECT candidate.*, refused, CASE WHEN refused IS NULL THEN payload_bytes ELSE 0 END AS bytes
          FROM unnest('${integers(lanes)}'::smallint[], '${integers(starts)}'::bigint[]) AS taken (lane, start)
          CROSS JOIN LATERAL (
            SELECT id, event_id, ordering_key, payload_json, payload_bytes, traceparent, created_at, attempt_count
            FROM ${outbox} candidate
            WHERE ${pending} AND ${inLaneFrom("taken.lane", "taken.start")}
              AND ${publishable("candidate", String(now), afterParked)}
            ORDER BY lane, id LIMIT ${limit}
          ) candidate
          CROSS JOIN LATERAL (SELECT ${Guarded.refused(names)} AS refused) bounds
          WHERE taken.lane = ANY (current_setting('controlpublish.lanes_taken')::smallint[])
          ORDER BY id LIMIT ${limit}
        ) batch
      ) measured
      WHERE before < ${maxBytes}
      ORDER BY measured.id`
  return {
    // Whatever else is pending up to the last row was skipped or has come back since: it goes before what follows.
    following: ({ lanes, last, starts, unrecorded }: Handed, options: FollowingOptions) => `
      SELECT * FROM (${rows(
        lanes,
        lanes.map(() => String(last + 1n)),
        options
      )}) following
      WHERE NOT EXISTS (
        SELECT FROM unnest('${integers(lanes)}'::smallint[], '${integers(starts)}'::bigint[]) AS taken (lane, start)
        CROSS JOIN LATERAL (
          SELECT id FROM ${outbox} WHERE ${pending} AND ${inLaneFrom("taken.lane", "taken.start")} AND id <= ${last}
          ORDER BY lane, id OFFSET 0
        ) before
        WHERE taken.lane = ANY (current_setting('controlpublish.lanes_taken')::smallint[])
          AND id <> ALL ('${integers(Array.from(unrecorded))}'::bigint[])
      )
      ORDER BY id::bigint`,
    // One round trip. Each statement takes a snapshot of its own: the rows are read after the locks were taken. No row
    // locks, as the lanes' locks exclude other pumps; and no parameters, as the portal of a statement with parameters
    // keeps its snapshot: so the transaction has neither an xid nor a snapshot while it waits for the sink. Sizes come
    // from a column of their own, so that payloads beyond the limit are not read.
    claim: (options: ClaimOptions, starts: ReadonlyArray<string>) => `
      ${Settled.begin("READ COMMITTED READ WRITE", { idle: Math.ceil(options.holdFor) + holdMargin })};
      SELECT set_config('controlpublish.lanes_taken', coalesce(array_agg(lane) FILTER (WHERE taken), '{}')::text, true),
          coalesce(bool_or(taken), false) AS taken
        FROM (SELECT lane, pg_try_advisory_xact_lock(${names.laneLock}, lane) AS taken
          FROM unnest('${integers(options.lanes)}'::int[]) AS lane) AS locks;
      ${rows(options.lanes, starts, options)}`
  }
}

const toRow = (row: ClaimRow): ClaimedRow => ({
  id: row.id,
  eventId: row.eventId,
  orderingKey: row.orderingKey,
  payload: row.payload,
  traceparent: row.traceparent ?? undefined,
  createdAt: row.createdAt,
  attemptCount: row.attemptCount,
  refused: row.refused ?? undefined
})

/** Claims rows of the lanes that it can lock. */
export const make = (
  names: Names.Names,
  positions: Positions.Positions,
  session: Effect.Effect<Session, OutboxError, Scope.Scope>
): OutboxStore["Type"]["claim"] => {
  const text = statements(names)
  const writeBack = WriteBack.make(names, positions)
  return (options) =>
    Effect.gen(function* () {
      const connection = yield* session
      let open = true
      yield* Effect.addFinalizer(() => (open ? rollback(connection) : Effect.void))
      const starts = options.lanes.map(positions.startOf)
      const results = yield* connection.script(text.claim(options, starts))
      const [[lock], claimed] = results.slice(-2) as [[{ readonly taken: boolean }], ReadonlyArray<ClaimRow>]
      if (!lock.taken) return { _tag: "LanesHeld" }
      const handed: Handed = { lanes: options.lanes, starts, last: 0n, unrecorded: new Set() }
      const hand = (claimed: ReadonlyArray<ClaimRow>) => {
        for (const { id } of claimed) handed.unrecorded.add(id)
        if (Arr.isNonEmptyReadonlyArray(claimed)) handed.last = BigInt(Arr.lastNonEmpty(claimed).id)
        return claimed.map(toRow)
      }
      const rows = hand(claimed)
      if (!Arr.isNonEmptyReadonlyArray(rows)) return { _tag: "LanesEmpty" }
      const { drawn } = claimed[0]!
      return {
        _tag: "Claim",
        rows,
        following: (options) =>
          Effect.map(
            Effect.suspend(() => connection.query<ClaimRow>(text.following(handed, options))),
            hand
          ),
        // On a connection of its own: a commit on this one would give the lanes back.
        record: (settlement) =>
          Effect.scoped(Effect.flatMap(session, (other) => writeBack.record(other, drawn, settlement))).pipe(
            Effect.tap(() =>
              Effect.sync(() => {
                for (const { id } of settlement.published) handed.unrecorded.delete(id)
              })
            )
          ),
        settle: (settlement) =>
          Effect.tap(writeBack.settle(connection, drawn, settlement), () =>
            Effect.sync(() => {
              open = false
            })
          )
      }
    })
}
