/**
 * The outbox in PostgreSQL.
 *
 * @since 1.0.0
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as SqlClient from "@effect/sql/SqlClient"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { EventId } from "../EventId.js"
import * as Lane from "../Lane.js"
import {
  crowd,
  DuplicateEventId,
  NotInTransaction,
  type AfterParked,
  type Claim,
  type ClaimOptions,
  type ClaimedRow,
  type Count,
  type NewRow,
  type OutboxError,
  type OutboxStore,
  type ParkedEvent,
  type Probe,
  type Settlement
} from "../OutboxStore.js"
import * as Columns from "./internal/columns.js"
import { inLane, inLaneFrom, instant, milliseconds, parked, pending } from "./internal/columns.js"
import * as Guarded from "./internal/guarded.js"
import * as Names from "./internal/names.js"
import * as Positions from "./internal/positions.js"
import { toOutboxError } from "./internal/failure.js"
import { makePool, rollback, type Session } from "./internal/session.js"
import { withTransaction } from "./internal/transaction.js"

/** Rows and bytes that one INSERT takes at most. */
const insertRows = 5_000
const insertBytes = 16 * 1024 * 1024

/** How much longer than the holder allows itself the server keeps a lane for it, in milliseconds. */
const holdMargin = 5_000

/** A bound only: the pump's concurrency decides. */
const connections = 2 * Lane.count

/** Failed attempts that are kept of an event. */
const keptAttempts = 20

const appended = `event_id, event_type, tenant_id, stack_id, version, base_version, artifact_ref, checksum,
  payload_json, ordering_key, traceparent, created_at`

const statements = (names: Names.Names) => {
  const { attempts, outbox } = names
  const probed = "(position - 1)::smallint"
  const into = `INSERT INTO ${outbox} (${appended})`
  const unlessThere = "ON CONFLICT (event_id) DO NOTHING RETURNING event_id"
  const drawn = `${Columns.drawn(names.sequence)}::text`
  // Keys behind a row that waits for its retry.
  const waitingKeys = (now: string) =>
    `SELECT ordering_key FROM ${outbox} WHERE ${pending} AND next_attempt_at > ${instant(now)}`
  const publishable = (row: string, now: string, afterParked: AfterParked) =>
    [
      `${row}.ordering_key NOT IN (${waitingKeys(now)})`,
      ...(afterParked === "wait"
        ? [
            `NOT EXISTS (SELECT FROM ${outbox} parked WHERE parked.lane = ${row}.lane AND parked.ordering_key = ${row}.ordering_key
               AND parked.published_at IS NULL AND parked.parked_at IS NOT NULL AND parked.id < ${row}.id)`
          ]
        : [])
    ].join(" AND ")
  return {
    orderLocks: `SELECT pg_advisory_xact_lock(${names.orderLock}, bucket)
      FROM (SELECT DISTINCT ${Names.bucketOf('key COLLATE "C"')} AS bucket FROM unnest($1::text[]) key ORDER BY 1) buckets`,

    insert: `${into}
      SELECT ${appended}
      FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::text[], $8::text[],
        $9::json[], $10::text[], $11::text[], $12::timestamptz[]) WITH ORDINALITY AS new (${appended}, position)
      ORDER BY position
      ${unlessThere}`,

    // What most appends are. To plan and run the other one for a single row costs the server 0.2 ms more.
    insertOne: `${into} VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ${unlessThere}`,

    takeBack: `SELECT ${Guarded.takeBack(names)}($1::text[])`,

    // $1 starts, $2 now. In the order of (lane, id), which leaves the planner the pending rows' index alone: with the
    // statistics of a backlog that is gone it would walk the whole table by id. OFFSET 0 has EXISTS keep its order.
    probe: (afterParked: AfterParked) => `
      SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS xmin, ${drawn} AS drawn,
        (SELECT ${milliseconds("min(next_attempt_at)")} FROM ${outbox}
          WHERE ${pending} AND next_attempt_at > ${instant("$2")}) AS next_attempt_at,
        coalesce(array_agg(lane), '{}') AS lanes,
        coalesce(array_agg(head::text), '{}') AS heads,
        coalesce(array_agg(publishable), '{}') AS publishable,
        coalesce(array_agg(crowded), '{}') AS crowded
      FROM (
        SELECT position::int - 1 AS lane, least(first.id, parked.id) AS head,
          first.id IS NOT NULL AND (${publishable("first", "$2", afterParked)} OR EXISTS (
            SELECT FROM ${outbox} later WHERE ${pending} AND ${inLaneFrom(probed, "first.id + 1")}
              AND ${publishable("later", "$2", afterParked)} ORDER BY lane, id OFFSET 0)) AS publishable,
          EXISTS (SELECT FROM ${outbox} other WHERE ${pending} AND ${inLaneFrom(probed, "first.id")}
            ORDER BY lane, id OFFSET ${crowd - 1} LIMIT 1) AS crowded
        FROM unnest($1::bigint[]) WITH ORDINALITY AS starts (start, position)
        LEFT JOIN LATERAL (
          SELECT id, lane, ordering_key FROM ${outbox} WHERE ${pending} AND ${inLaneFrom(probed, "start")}
          ORDER BY lane, id LIMIT 1
        ) first ON true
        LEFT JOIN LATERAL (
          SELECT id FROM ${outbox} WHERE ${parked} AND ${inLane(probed)}
          ORDER BY lane, id LIMIT 1
        ) parked ON true
        WHERE first.id IS NOT NULL OR parked.id IS NOT NULL
      ) lanes`,

    // One round trip. Each statement takes a snapshot of its own: the rows are read after the locks were taken. No row
    // locks, as the lanes' locks exclude other pumps; and no parameters, as the portal of a statement with parameters
    // keeps its snapshot: so the transaction has neither an xid nor a snapshot while it waits for the sink. Sizes come
    // from a column of their own, so that payloads beyond the limit are not read.
    claim: ({ afterParked, holdFor, lanes, limit, maxBytes, now }: ClaimOptions, starts: ReadonlyArray<string>) => `
      BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
      SET LOCAL idle_in_transaction_session_timeout = ${Math.ceil(holdFor) + holdMargin};
      SELECT set_config('controlpublish.lanes_taken', coalesce(array_agg(lane) FILTER (WHERE taken), '{}')::text, true),
          coalesce(bool_or(taken), false) AS taken
        FROM (SELECT lane, pg_try_advisory_xact_lock(${names.laneLock}, lane) AS taken
          FROM unnest('${integers(lanes)}'::int[]) AS lane) AS locks;
      SELECT id::text AS id, event_id AS "eventId", ordering_key AS "orderingKey", payload_json::text AS payload,
        traceparent, ${milliseconds("created_at")} AS "createdAt", attempt_count AS "attemptCount",
        ${drawn} AS drawn
      FROM (
        SELECT *, sum(payload_bytes) OVER (ORDER BY id) - payload_bytes AS before FROM (
          SELECT candidate.*
          FROM unnest('${integers(lanes)}'::smallint[], '${integers(starts)}'::bigint[]) AS taken (lane, start)
          CROSS JOIN LATERAL (
            SELECT id, event_id, ordering_key, payload_json, payload_bytes, traceparent, created_at, attempt_count
            FROM ${outbox} candidate
            WHERE ${pending} AND ${inLaneFrom("taken.lane", "taken.start")}
              AND ${publishable("candidate", String(now), afterParked)}
            ORDER BY lane, id LIMIT ${limit}
          ) candidate
          WHERE taken.lane = ANY (current_setting('controlpublish.lanes_taken')::smallint[])
          ORDER BY id LIMIT ${limit}
        ) batch
      ) measured
      WHERE before < ${maxBytes}
      ORDER BY measured.id`,

    // One round trip, too. Numbers alone, which need no parameters.
    writePublished: (published: Settlement["published"], now: number) => `
      WITH written AS (
        UPDATE ${outbox} SET published_control_version = result.version, published_at = ${instant(String(now))},
          attempt_count = attempt_count + 1, last_attempt_at = ${instant(String(now))}, next_attempt_at = NULL,
          parked_at = NULL
        FROM unnest('${integers(published.map(({ id }) => id))}'::bigint[],
          '${integers(published.map(({ version }) => version))}'::bigint[]) AS result (id, version)
        WHERE ${outbox}.id = result.id
      )
      SELECT pg_current_xact_id()::text AS xid;
      COMMIT`,

    // $1 ids, $2 errors, $3 next attempts or NULL to park, $4 now
    writeFailed: `
      WITH result AS (
        SELECT id, error, ${instant("next_attempt_at")} AS next_attempt_at
        FROM unnest($1::bigint[], $2::text[], $3::float8[]) AS result (id, error, next_attempt_at)
      ), written AS (
        UPDATE ${outbox} SET last_error = result.error, attempt_count = attempt_count + 1,
          last_attempt_at = ${instant("$4")}, next_attempt_at = result.next_attempt_at,
          parked_at = CASE WHEN result.next_attempt_at IS NULL THEN ${instant("$4")} END
        FROM result WHERE ${outbox}.id = result.id
      ), forgotten AS (
        DELETE FROM ${attempts} USING result
        WHERE ${attempts}.outbox_id = result.id AND ${attempts}.id < (SELECT kept.id FROM ${attempts} kept
          WHERE kept.outbox_id = result.id ORDER BY kept.id DESC OFFSET ${keptAttempts - 2} LIMIT 1)
      )
      INSERT INTO ${attempts} (outbox_id, at, error, next_attempt_at)
      SELECT id, ${instant("$4")}, error, next_attempt_at FROM result`,

    // $1 limit
    backlog: `
      SELECT ${Columns.count(outbox, pending, "$1")} AS pending, ${Columns.countWaiting(outbox, "$1")} AS waiting,
        ${Columns.count(outbox, parked, "$1")} AS parked,
        (SELECT ${milliseconds("min(created_at)")} FROM ${Columns.lanes}
          CROSS JOIN LATERAL (${Columns.ofLane(outbox, pending, "created_at", "1")}) first) AS "oldestPendingAt"`,

    parked: `SELECT event_id AS "eventId", event_type AS type, ordering_key AS "orderingKey",
        attempt_count AS "attemptCount", ${milliseconds("parked_at")} AS "parkedAt", coalesce(last_error, '') AS error
      FROM ${outbox} WHERE ${parked} ORDER BY id LIMIT $1`,

    redrive: `
      WITH redriven AS (
        UPDATE ${outbox} SET parked_at = NULL, next_attempt_at = NULL, attempt_count = 0
        WHERE event_id = ANY ($1::text[]) AND ${parked}
        RETURNING event_id
      ), announced AS (
        SELECT pg_notify(${Names.literal(names.channel)}, 'redrive') WHERE EXISTS (SELECT FROM redriven)
      )
      SELECT event_id AS "eventId" FROM redriven LEFT JOIN announced ON true`
  }
}

/** The parameters of the INSERT: one array a column. */
const columns = (rows: ReadonlyArray<NewRow>): ReadonlyArray<ReadonlyArray<unknown>> => [
  rows.map(({ event }) => event.event_id),
  rows.map(({ event }) => event.type),
  rows.map(({ event }) => event.tenant_id),
  rows.map(({ event }) => event.stack_id),
  rows.map(({ event }) => event.version),
  rows.map(({ event }) => event.base_version),
  rows.map(({ event }) => event.artifact_ref),
  rows.map(({ event }) => event.checksum),
  rows.map(({ payload }) => payload),
  rows.map(({ orderingKey }) => orderingKey),
  rows.map(({ traceparent }) => traceparent),
  rows.map(({ event }) => event.created_at)
]

const chunks = (rows: ReadonlyArray<NewRow>): ReadonlyArray<ReadonlyArray<NewRow>> => {
  const result: Array<Array<NewRow>> = []
  let bytes = 0
  for (const row of rows) {
    const last = result[result.length - 1]
    bytes += row.payload.length
    if (last === undefined || last.length >= insertRows || bytes > insertBytes) {
      result.push([row])
      bytes = row.payload.length
    } else {
      last.push(row)
    }
  }
  return result
}

/** An array of integers as PostgreSQL reads one. The driver would escape each. */
const integers = (values: ReadonlyArray<string | number>): string => `{${values.join()}}`

const count = (value: number, limit: number): Count => ({ value, exact: value < limit })

interface ClaimRow extends Omit<ClaimedRow, "traceparent"> {
  readonly traceparent: string | null
  readonly drawn: string
}

/**
 * The store for a schema, on the connection that `PgClient` describes. Appends join the transaction of the application;
 * everything else runs on connections of the store's own: one for each lane that is claimed at the time, one for what is
 * asked meanwhile, and none as long as none is needed.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (names: Names.Names): Effect.Effect<OutboxStore["Type"], never, PgClient.PgClient | Scope.Scope> =>
  Effect.gen(function* () {
    const client = yield* PgClient.PgClient
    const sql = client.withoutTransforms()
    const positions = Positions.make()
    const text = statements(names)
    const session = yield* makePool(client.config, connections, positions.clear)

    const withSession = <A>(use: (session: Session) => Effect.Effect<A, OutboxError>): Effect.Effect<A, OutboxError> =>
      Effect.scoped(Effect.flatMap(session, use))

    const run = <Row extends object>(doing: string, statement: string, values: ReadonlyArray<unknown>) =>
      Effect.mapError(sql.unsafe<Row>(statement, values), (error) => toOutboxError(doing)(error.cause))

    const insertChunk = (rows: ReadonlyArray<NewRow>) =>
      Effect.map(
        rows.length === 1
          ? run<{ event_id: string }>("append to the outbox", text.insertOne, columns(rows).flat())
          : run<{ event_id: string }>("append to the outbox", text.insert, columns(rows)),
        (inserted) => inserted.map((row) => row.event_id)
      )

    const insert = (rows: Arr.NonEmptyReadonlyArray<NewRow>) =>
      Effect.gen(function* () {
        const keys = new Set(rows.map((row) => row.orderingKey))
        // Taken in one order, before any of them is taken by the trigger: two batches cannot wait for each other.
        if (keys.size > 1) yield* run("lock the ordering keys", text.orderLocks, [Array.from(keys)])
        const inserted: Array<string> = []
        for (const chunk of chunks(rows)) {
          const ids = yield* insertChunk(chunk)
          for (const id of ids) inserted.push(id)
          if (ids.length === chunk.length) continue
          yield* run("take back an append", text.takeBack, [inserted])
          const fresh = new Set(ids)
          const duplicate = chunk.find(({ event }) => !fresh.delete(event.event_id))
          return yield* new DuplicateEventId({ eventId: duplicate!.event.event_id })
        }
      })

    const writeBack = (session: Session, drawn: string): Claim["settle"] =>
      Effect.fnUntraced(function* ({ failed, now, parked, published }) {
        const unpublished = [...failed, ...parked.map((row) => ({ ...row, nextAttemptAt: null }))]
        if (unpublished.length > 0) {
          yield* session.query(text.writeFailed, [
            unpublished.map((row) => row.id),
            unpublished.map((row) => row.error),
            unpublished.map((row) => row.nextAttemptAt),
            now
          ])
        }
        if (published.length === 0) {
          yield* session.query("COMMIT")
          return
        }
        const [[row]] = (yield* session.script(text.writePublished(published, now))) as [[{ readonly xid: string }]]
        positions.fence(BigInt(drawn), BigInt(row.xid))
      })

    return {
      append: (rows) =>
        Effect.flatMap(
          Effect.serviceOption(SqlClient.TransactionConnection),
          (transaction): Effect.Effect<void, NotInTransaction | DuplicateEventId | OutboxError> =>
            Option.isNone(transaction) ? new NotInTransaction() : insert(rows)
        ),

      withTransaction: withTransaction(sql, toOutboxError),

      probe: ({ afterParked, now }) =>
        withSession((session) =>
          session.query<{
            readonly xmin: string
            readonly drawn: string
            readonly next_attempt_at: number | null
            readonly lanes: ReadonlyArray<number>
            readonly heads: ReadonlyArray<string>
            readonly publishable: ReadonlyArray<boolean>
            readonly crowded: ReadonlyArray<boolean>
          }>(text.probe(afterParked), [positions.starts(), now])
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
        ),

      claim: (options) =>
        Effect.gen(function* () {
          const connection = yield* session
          let open = true
          yield* Effect.addFinalizer(() => (open ? rollback(connection) : Effect.void))
          const results = yield* connection.script(text.claim(options, options.lanes.map(positions.startOf)))
          const [[lock], claimed] = results.slice(-2) as [[{ readonly taken: boolean }], ReadonlyArray<ClaimRow>]
          if (!lock.taken) return { _tag: "LanesHeld" }
          const rows = claimed.map((row): ClaimedRow => ({
            id: row.id,
            eventId: row.eventId,
            orderingKey: row.orderingKey,
            payload: row.payload,
            traceparent: row.traceparent ?? undefined,
            createdAt: row.createdAt,
            attemptCount: row.attemptCount
          }))
          if (!Arr.isNonEmptyReadonlyArray(rows)) return { _tag: "LanesEmpty" }
          const settle = writeBack(connection, claimed[0]!.drawn)
          return {
            _tag: "Claim",
            rows,
            settle: (settlement) =>
              Effect.tap(settle(settlement), () =>
                Effect.sync(() => {
                  open = false
                })
              )
          }
        }),

      backlog: ({ limit }) =>
        Effect.map(
          withSession((session) =>
            session.query<{
              readonly pending: number
              readonly waiting: number
              readonly parked: number
              readonly oldestPendingAt: number | null
            }>(text.backlog, [limit])
          ),
          ([row]) => ({
            pending: count(row?.pending ?? 0, limit),
            waiting: count(row?.waiting ?? 0, limit),
            parked: count(row?.parked ?? 0, limit),
            oldestPendingAt: row?.oldestPendingAt ?? undefined
          })
        ),

      parked: ({ limit }) => withSession((session) => session.query<ParkedEvent>(text.parked, [limit])),

      redrive: (eventIds) =>
        withSession((session) => session.query<{ readonly eventId: string }>(text.redrive, [eventIds])).pipe(
          Effect.map((rows) => rows.map((row) => row.eventId as EventId))
        )
    }
  })
