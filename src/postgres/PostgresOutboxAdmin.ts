/**
 * Looks into the outbox in PostgreSQL, and mends it.
 *
 * @since 1.0.0
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Struct from "effect/Struct"
import * as Lane from "../Lane.js"
import {
  EventNotFound,
  InvalidCursor,
  OutboxAdmin,
  WrongState,
  type AuditEntry,
  type By,
  type EventDetail,
  type EventFilter,
  type EventState,
  type Overview
} from "../OutboxAdmin.js"
import { maxErrorLength, OutboxError, type Count } from "../OutboxStore.js"
import * as Bounds from "../internal/bounds.js"
import { truncate } from "../internal/text.js"
import * as Columns from "./internal/columns.js"
import { drawn, instant, parked, pending } from "./internal/columns.js"
import * as EventPages from "./internal/eventPages.js"
import * as Names from "./internal/names.js"
import * as Pruning from "./internal/pruning.js"
import * as Guarded from "./internal/guarded.js"
import * as Settled from "./internal/settled.js"
import { makePool, rollback, type Session } from "./internal/session.js"

/** What those who operate may take of the server at a time. */
const connections = 2

/** Milliseconds until a statement is given up, and one that waits for a lock. */
const statementTimeout = 5_000
const lockTimeout = 2_000

/** Parked events that one transaction redrives. */
const chunk = 1_000

// Everything that is asked for can be had in the order of an index, up to a limit. Statistics that are old must not talk
// the planner into reading all there is.
const begin = (mode: string) => `BEGIN ISOLATION LEVEL ${mode};
  ${Settled.settings({ statement: statementTimeout, lock: lockTimeout, idle: 0 })};
  SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off; SET LOCAL jit = off`

const reading = begin("REPEATABLE READ READ ONLY")

const writing = begin("READ COMMITTED READ WRITE")

const statements = (names: Names.Names) => {
  const { attempts, audit, outbox } = names
  const inLane = (condition: string) =>
    `(SELECT count(*)::int FROM (${Columns.ofLane(outbox, condition, "", "$2")}) counted)`
  const announce = (what: string, rows: string) =>
    `SELECT pg_notify(${Names.literal(names.channel)}, ${Names.literal(what)}) WHERE EXISTS (SELECT FROM ${rows})`
  return {
    // $1 limit, $2 limit of a lane
    overview: `
      SELECT ${drawn(names.sequence)}::float8 AS drawn, ${Columns.count(outbox, pending, "$1")} AS pending,
        ${Columns.count(outbox, parked, "$1")} AS parked, ${Columns.countWaiting(outbox, "$1")} AS waiting,
        (SELECT coalesce(json_agg(json_build_object('lane', lane, 'pending', pending, 'parked', parked, 'head', head)
            ORDER BY lane), '[]')
          FROM (
            SELECT lanes.lane, ${inLane(pending)} AS pending, ${inLane(parked)} AS parked,
              json_strip_nulls(row_to_json(head)) AS head
            FROM ${Columns.lanes} LEFT JOIN LATERAL (
              SELECT "eventId", type, "orderingKey", "createdAt", "attemptCount", "nextAttemptAt", "lastError"
              FROM (SELECT ${EventPages.summary} FROM (${Columns.ofLane(outbox, pending, "*", "1")}) first) summary
            ) head ON true
          ) lanes WHERE pending > 0 OR parked > 0) AS lanes`,

    event: `
      SELECT ${EventPages.summary},
        CASE WHEN payload_bytes <= ${Guarded.maxPayloadBytes(names)} THEN payload_json::text ELSE '' END AS payload,
        CASE WHEN payload_bytes > ${Guarded.maxPayloadBytes(names)} THEN payload_bytes END AS "payloadOmitted",
        CASE WHEN octet_length(traceparent) <= ${Bounds.textBytes.traceparent} THEN traceparent END AS traceparent,
        (SELECT coalesce(json_agg(json_strip_nulls(json_build_object(${EventPages.attemptFields})) ORDER BY id DESC), '[]')
          FROM ${attempts} WHERE outbox_id = ${outbox}.id) AS "failedAttempts"
      FROM ${outbox} WHERE event_id = $1`,

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

    // A pump that publishes of the lane holds its lock. Whoever waits for it is served before the next pump.
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
        CASE WHEN payload_bytes <= ${Guarded.maxPayloadBytes(names)} THEN row_to_json(done)
          ELSE json_build_object('id', id, 'event_id', event_id, 'ordering_key', ${Columns.bounded("ordering_key")},
            'payload_bytes', payload_bytes, 'payload_omitted', true) END
      FROM done LEFT JOIN announced ON true
      RETURNING id`,

    record: `INSERT INTO ${audit} (at, action, actor, reason, affected) VALUES (${instant("$1")}, $2, $3, $4, $5)`,

    // $1 cursor, $2 limit
    audit: `
      SELECT id, floor(extract(epoch FROM at) * 1000)::float8 AS at, action, actor, reason, event_id AS "eventId", filter,
        affected
      FROM ${audit} WHERE $1::bigint IS NULL OR id < $1 ORDER BY id DESC LIMIT $2`
  }
}

const count = (value: number, limit: number): Count => ({ value, exact: value < limit })

/** Pages are by id. */
const checkCursor = ({ cursor }: { readonly cursor?: string | undefined }): Effect.Effect<void, InvalidCursor> =>
  cursor === undefined || /^[1-9]\d{0,17}$/.test(cursor) ? Effect.void : Effect.fail(new InvalidCursor({ cursor }))

/** Says whom the lock of a lane was waited for, where it was not had. */
const laneIsHeld = (error: OutboxError): OutboxError =>
  error.cause instanceof Error && "code" in error.cause && error.cause.code === "55P03"
    ? new OutboxError({
        message: `A publish of the event's lane is in flight, or the table is locked, for more than ${lockTimeout / 1000} seconds: try again. ${error.message}`,
        retryable: true,
        cause: error.cause
      })
    : error

/** In the order of the parked rows' index. */
interface Place {
  readonly lane: number
  readonly id: string
}

const first: Place = { lane: -1, id: "0" }

/** How many of a chunk, and where it ended. */
interface Redriven extends Place {
  readonly redriven: number
}

interface OverviewRow extends Record<"drawn" | "pending" | "parked" | "waiting", number> {
  readonly lanes: ReadonlyArray<{
    readonly lane: number
    readonly pending: number
    readonly parked: number
    readonly head: Overview["lanes"][number]["head"] | null
  }>
}

/**
 * Looks into the outbox of a schema, and mends it, on at most two connections of its own. No statement takes longer than
 * five seconds, or waits for a lock for more than two.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (names: Names.Names): Effect.Effect<OutboxAdmin["Type"], never, PgClient.PgClient | Scope.Scope> =>
  Effect.gen(function* () {
    const { config } = yield* PgClient.PgClient
    const text = statements(names)
    const readPage = EventPages.make(names)
    const prune = Pruning.make(names)
    const session = yield* makePool(config, connections, () => {})

    // Whoever waits for a lock leaves the other connection to those who look.
    const oneWriter = yield* Effect.makeSemaphore(1)

    const transaction = <A, E>(
      begin: string,
      use: (session: Session) => Effect.Effect<A, E | OutboxError>
    ): Effect.Effect<A, E | OutboxError> =>
      Effect.gen(function* () {
        const connection = yield* session
        let open = true
        yield* Effect.addFinalizer(() => (open ? rollback(connection) : Effect.void))
        yield* connection.script(begin)
        const result = yield* use(connection)
        yield* connection.query("COMMIT")
        open = false
        return result
      }).pipe(Effect.scoped)

    const read = <A>(use: (session: Session) => Effect.Effect<A, OutboxError>) => transaction(reading, use)

    const write = <A, E>(use: (session: Session) => Effect.Effect<A, E | OutboxError>) =>
      oneWriter.withPermits(1)(transaction(writing, use))

    /** What is done to one event, once no publish of it is in flight. */
    const change = (
      eventId: string,
      statement: string,
      values: ReadonlyArray<unknown>,
      refusal: (state: EventState) => string
    ): Effect.Effect<void, EventNotFound | WrongState | OutboxError> =>
      write((session) =>
        Effect.gen(function* () {
          const [locked] = yield* Effect.mapError(session.query(text.lockLane, [eventId]), laneIsHeld)
          if (locked === undefined) return yield* new EventNotFound({ eventId })
          const [done] = yield* session.query(statement, [eventId, ...values])
          if (done !== undefined) return
          const [row] = yield* session.query<{ readonly state: EventState }>(text.state, [eventId])
          if (row === undefined) return yield* new EventNotFound({ eventId })
          return yield* new WrongState({ eventId, state: row.state, message: refusal(row.state) })
        })
      )

    const redriveChunk = (
      filter: EventFilter,
      by: By,
      after: Place
    ): Effect.Effect<Redriven | undefined, OutboxError> =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const one = filter.eventId !== undefined
        const [found] = yield* write((session) =>
          session.query<Redriven>(text.redrive(one), [
            after.lane,
            after.id,
            now,
            by.actor,
            by.reason,
            one ? null : JSON.stringify(filter),
            ...EventPages.values(filter)
          ])
        )
        return found
      })

    return {
      overview: ({ limit }) => {
        const ofLane = Math.ceil(limit / Lane.count)
        return Effect.map(
          read((session) => session.query<OverviewRow>(text.overview, [limit, ofLane])),
          ([row]): Overview => {
            const { drawn, lanes, parked, pending, waiting } = row!
            const oldest = lanes.flatMap(({ head }) => (head === null ? [] : [head!.createdAt]))
            return {
              pending: count(pending, limit),
              waiting: count(waiting, limit),
              parked: count(parked, limit),
              ...(oldest.length === 0 ? {} : { oldestPendingAt: Math.min(...oldest) }),
              drawn,
              lanes: lanes.map(({ head, lane, parked, pending }) => ({
                lane,
                pending: count(pending, ofLane),
                parked: count(parked, ofLane),
                ...(head === null ? {} : { head })
              }))
            }
          }
        )
      },

      events: (filter, page) =>
        Effect.zipRight(
          checkCursor(page),
          read((session) => readPage(session, filter, page))
        ),

      event: (eventId) =>
        Effect.map(
          read((session) => session.query<EventDetail>(text.event, [eventId])),
          ([row]) => Option.map(Option.fromNullable(row), EventPages.defined)
        ),

      redrive: (filter, by) =>
        Effect.gen(function* () {
          if (filter.state !== undefined && filter.state !== "parked") return 0
          let total = 0
          for (let place: Place | undefined = first; place !== undefined;) {
            const found: Redriven | undefined = yield* redriveChunk(filter, by, place)
            total += found?.redriven ?? 0
            place = found
          }
          return total
        }),

      park: (eventId, by) =>
        Effect.flatMap(Clock.currentTimeMillis, (now) =>
          change(
            eventId,
            text.park,
            [now, by.actor, by.reason, truncate(`Parked by hand: ${by.reason}`, maxErrorLength)],
            (state) => `The event is ${state}: only one that is pending can be parked`
          )
        ),

      discard: (eventId, by) =>
        Effect.flatMap(Clock.currentTimeMillis, (now) =>
          change(
            eventId,
            text.discard,
            [now, by.actor, by.reason],
            (state) => `The event is ${state}: only one that is not published can be discarded`
          )
        ),

      record: (action, by, affected) =>
        Effect.flatMap(Clock.currentTimeMillis, (now) =>
          Effect.asVoid(
            write((session) => session.query(text.record, [now, action, by.actor, by.reason, affected ?? null]))
          )
        ),

      audit: (page) =>
        Effect.zipRight(
          checkCursor(page),
          read((session) =>
            session.query<AuditEntry & { readonly id: string }>(text.audit, [page.cursor, page.limit + 1])
          )
        ).pipe(
          Effect.map((rows) => {
            const entries = rows.slice(0, page.limit).map((row) => EventPages.defined(Struct.omit(row, "id")))
            return rows.length > page.limit ? { entries, next: rows[page.limit - 1]!.id } : { entries }
          })
        ),

      prune: (retention, { limit }) => write((session) => prune(session, retention, limit))
    }
  })

/**
 * @since 1.0.0
 * @category models
 */
export interface Options {
  /** The PostgreSQL schema that holds the outbox. Default `public`. */
  readonly schema?: string | undefined
}

/**
 * Of the outbox in the database of the `PgClient`, whose settings it uses for connections of its own.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer = (options: Options = {}): Layer.Layer<OutboxAdmin, never, PgClient.PgClient> =>
  Layer.scoped(OutboxAdmin, make(Names.make(options.schema ?? "public")))
