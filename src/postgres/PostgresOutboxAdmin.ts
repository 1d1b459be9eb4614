/**
 * Reads the outbox in PostgreSQL and acts on its events.
 *
 * @since 0.1.0
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
  type Erased,
  type EventDetail,
  type EventFilter,
  type EventState,
  type OutboxIdentity,
  type Overview,
  type Stranger
} from "../OutboxAdmin.js"
import { maxErrorLength, OutboxError, type Count } from "../OutboxStore.js"
import type { AttendedPump, PumpReport } from "../PumpStatus.js"
import * as Erasing from "../internal/erasing.js"
import { truncate } from "../internal/text.js"
import { lockTimeout, reading, statements, writing } from "./internal/adminStatements.js"
import * as EventPages from "./internal/eventPages.js"
import * as Names from "./internal/names.js"
import * as Payloads from "./internal/payloads.js"
import * as Pruning from "./internal/pruning.js"
import * as Settled from "./internal/settled.js"
import { makePool, type Session } from "./internal/session.js"
import { layerConfig as makeLayerConfig, type LayerConfig } from "../internal/layerConfig.js"

/** The load limits for operators. */
const connections = 2

const count = (value: number, limit: number): Count => ({ value, exact: value < limit })

/** Pages are by id. */
const checkCursor = ({ cursor }: { readonly cursor?: string | undefined }): Effect.Effect<void, InvalidCursor> =>
  cursor === undefined || /^[1-9]\d{0,17}$/.test(cursor) ? Effect.void : Effect.fail(new InvalidCursor({ cursor }))

/** Adds to a lock timeout which lock was waited for. */
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

/** The number of rows of a chunk, and where it ended. */
interface Redriven extends Place {
  readonly redriven: number
}

interface OverviewRow extends Record<"drawn" | "pending" | "parked" | "waiting", number> {
  readonly strangers: ReadonlyArray<Stranger>
  readonly lanes: ReadonlyArray<{
    readonly lane: number
    readonly pending: number
    readonly parked: number
    readonly head: Overview["lanes"][number]["head"] | null
  }>
}

/**
 * Reads the outbox of a schema and acts on its events, on at most two connections of its own. No statement takes longer
 * than five seconds, or waits for a lock for more than two.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (names: Names.Names): Effect.Effect<OutboxAdmin["Type"], never, PgClient.PgClient | Scope.Scope> =>
  Effect.gen(function* () {
    const { config } = yield* PgClient.PgClient
    const text = statements(names)
    const readPage = EventPages.make(names)
    const prune = Pruning.make(names)
    const session = yield* makePool(config, connections, () => {})

    // A wait for a lock leaves the other connection to readers.
    const oneWriter = yield* Effect.makeSemaphore(1)

    const read = <A>(use: (session: Session) => Effect.Effect<A, OutboxError>) =>
      Settled.transaction(session, reading, use)

    const write = <A, E>(use: (session: Session) => Effect.Effect<A, E | OutboxError>) =>
      oneWriter.withPermits(1)(Settled.transaction(session, writing, use))

    /** An action on one event, once no publish of it is in flight. */
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
      identity: () =>
        Effect.map(
          read((session) => session.query<Omit<OutboxIdentity, "schema">>(text.identity)),
          ([row]): OutboxIdentity => ({ ...row!, schema: names.schema })
        ),

      attend: (report) =>
        Effect.asVoid(write((session) => session.query(text.attend, [report.id, JSON.stringify(report)]))),

      leave: (id) => Effect.asVoid(write((session) => session.query(text.leave, [id]))),

      pumps: () =>
        Effect.map(
          read((session) =>
            session.query<Pick<AttendedPump, "lost" | "seenAt"> & { readonly report: PumpReport }>(text.pumps)
          ),
          (rows) => rows.map(({ lost, report, seenAt }): AttendedPump => ({ ...report, seenAt, lost }))
        ),

      overview: ({ limit }) => {
        const ofLane = Math.ceil(limit / Lane.count)
        return Effect.map(
          read((session) => session.query<OverviewRow>(text.overview, [limit, ofLane])),
          ([row]): Overview => {
            const { drawn, lanes, parked, pending, strangers, waiting } = row!
            const oldest = lanes.flatMap(({ head }) => (head === null ? [] : [head!.createdAt]))
            return {
              pending: count(pending, limit),
              waiting: count(waiting, limit),
              parked: count(parked, limit),
              ...(oldest.length === 0 ? {} : { oldestPendingAt: Math.min(...oldest) }),
              drawn,
              ...(strangers.length === 0 ? {} : { strangers }),
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

      payload: Payloads.make(text, read),

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
            [now, by.actor, by.reason, truncate(`Parked by an operator: ${by.reason}`, maxErrorLength)],
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

      erase: (eventId, by) =>
        write((session) =>
          Effect.gen(function* () {
            yield* Effect.mapError(session.query(text.lockLane, [eventId]), laneIsHeld)
            const [row] = yield* session.query<{ readonly state: EventState }>(text.state, [eventId])
            if (row !== undefined && row.state !== "published") {
              return yield* new WrongState({ eventId, state: row.state, message: Erasing.refusal(row.state) })
            }
            const now = yield* Clock.currentTimeMillis
            const values = [eventId, now, by.actor, by.reason]
            const [done] = yield* session.query<Omit<Erased, "eventId" | "remains">>(text.erase, values)
            if (done === undefined) return yield* new EventNotFound({ eventId })
            return Erasing.erased({ eventId, ...EventPages.defined(done) })
          })
        ),

      record: (action, by, { affected = null, eventId = null } = {}) =>
        Effect.flatMap(Clock.currentTimeMillis, (now) =>
          Effect.asVoid(
            write((session) => session.query(text.record, [now, action, by.actor, by.reason, affected, eventId]))
          )
        ),

      audit: (page) =>
        Effect.zipRight(
          checkCursor(page),
          read((session) =>
            session.query<AuditEntry & { readonly id: string }>(text.audit(page.changesOnly === true), [
              page.cursor,
              page.limit + 1
            ])
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
 * Where the outbox is.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The PostgreSQL schema that holds the outbox. Default `public`. */
  readonly schema?: string | undefined
}

/**
 * Provides the `OutboxAdmin` of the outbox in the database of the `PgClient`, on its own connections with the same
 * settings.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: Options = {}): Layer.Layer<OutboxAdmin, never, PgClient.PgClient> =>
  Layer.scoped(OutboxAdmin, make(Names.make(options.schema ?? "public")))

/**
 * Provides the same as {@link layer}, its options read from `Config`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig: LayerConfig<Options, OutboxAdmin, never, PgClient.PgClient> = makeLayerConfig(layer)
