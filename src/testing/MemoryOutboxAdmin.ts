/**
 * `OutboxAdmin` over the outbox in memory, for tests.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Struct from "effect/Struct"
import * as Bounds from "../internal/bounds.js"
import * as ControlEvent from "../ControlEvent.js"
import { truncate } from "../internal/text.js"
import * as Erasing from "../internal/erasing.js"
import * as Lane from "../Lane.js"
import {
  EventNotFound,
  InvalidCursor,
  OutboxAdmin,
  PayloadOmitted,
  WrongState,
  type AuditAction,
  type AuditEntry,
  type EventFilter,
  type EventState,
  type EventSummary,
  type Overview,
  type PageOptions
} from "../OutboxAdmin.js"
import { maxErrorLength, type Count } from "../OutboxStore.js"
import type { AttendedPump } from "../PumpStatus.js"
import { isPending, type MemoryRow } from "./internal/memoryRow.js"
import { MemoryOutboxStore } from "./MemoryOutboxStore.js"

const stateOf = (row: MemoryRow): EventState => {
  if (row.publishedAt !== undefined) return "published"
  if (row.parkedAt !== undefined) return "parked"
  return row.nextAttemptAt === undefined ? "pending" : "waiting"
}

const defined = <A extends object>(value: A): A =>
  Object.fromEntries(Object.entries(value).filter(([, value]) => value !== undefined)) as A

const summaryOf = (row: MemoryRow): EventSummary =>
  Bounds.cutTexts(
    defined({
      eventId: row.eventId,
      type: row.type,
      tenantId: row.tenantId,
      stackId: row.stackId,
      orderingKey: row.orderingKey,
      lane: row.lane,
      state: stateOf(row),
      createdAt: row.createdAt,
      attemptCount: row.attemptCount,
      lastError: row.lastError,
      lastAttemptAt: row.lastAttemptAt,
      nextAttemptAt: row.nextAttemptAt,
      parkedAt: row.parkedAt,
      controlVersion: row.version,
      publishedAt: row.publishedAt
    })
  )

const headOf = (row: MemoryRow): Overview["lanes"][number]["head"] => {
  const { attemptCount, createdAt, cut, eventId, lastError, nextAttemptAt, orderingKey, type } = summaryOf(row)
  return defined({ eventId, type, orderingKey, createdAt, attemptCount, nextAttemptAt, lastError, cut })
}

const matches =
  (filter: EventFilter) =>
  (row: MemoryRow): boolean => {
    const is = <A>(wanted: A | undefined, value: A) => wanted === undefined || wanted === value
    const state = stateOf(row)
    return (
      is(filter.eventId, row.eventId) &&
      is(filter.type, row.type) &&
      is(filter.tenantId, row.tenantId) &&
      is(filter.orderingKey, row.orderingKey) &&
      (is(filter.state, state) || (filter.state === "pending" && state === "waiting")) &&
      (filter.since === undefined || row.createdAt >= filter.since) &&
      (filter.until === undefined || row.createdAt < filter.until)
    )
  }

const isChange = (action: AuditAction): boolean => action !== "read" && action !== "refused"

const artifactOf = ({ payload }: MemoryRow): string | undefined => {
  const event = Either.getOrUndefined(ControlEvent.parse(payload))
  return typeof event === "object" &&
    event !== null &&
    "artifact_ref" in event &&
    typeof event.artifact_ref === "string"
    ? event.artifact_ref
    : undefined
}

/** A payload beyond the limit is not shown. */
const shownPayload = (payload: string) => {
  const bytes = Buffer.byteLength(payload)
  return bytes > Bounds.payloadBytes
    ? { payload: "", payloadBytes: bytes, payloadOmitted: bytes }
    : Bounds.shownPayload(payload)
}

/** The newest of those that are older than the cursor. */
const pageOf = <A extends { readonly id: number }>(
  items: ReadonlyArray<A>,
  { cursor, limit }: PageOptions
): Effect.Effect<readonly [page: ReadonlyArray<A>, next: { readonly next?: string }], InvalidCursor> => {
  if (cursor !== undefined && !/^[1-9]\d{0,17}$/.test(cursor)) return Effect.fail(new InvalidCursor({ cursor }))
  const found = items.filter(({ id }) => cursor === undefined || id < Number(cursor)).toReversed()
  const page = found.slice(0, limit)
  return Effect.succeed([page, found.length > limit ? { next: String(page[limit - 1]!.id) } : {}])
}

const make = Effect.gen(function* () {
  const store = yield* MemoryOutboxStore
  const entries: Array<AuditEntry & { readonly id: number }> = []
  const pumps = new Map<string, AttendedPump>()
  const rows = Effect.zipRight(store.check, store.rows)
  /** Events whose payloads the audit log of a database would have. */
  const discarded = new Set<string>()

  const write = (entry: Omit<AuditEntry, "at">) =>
    Effect.map(Clock.currentTimeMillis, (at) => {
      entries.push({ ...entry, at, id: entries.length + 1 })
    })

  const change = (
    eventId: string,
    permitted: (row: MemoryRow) => boolean,
    refusal: (state: EventState) => string,
    to: (row: MemoryRow, now: number) => MemoryRow | undefined
  ) =>
    Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      let refused: EventState | undefined
      const found = yield* store.change(eventId, (row) => {
        if (permitted(row)) return to(row, now)
        refused = stateOf(row)
        return row
      })
      if (!found) return yield* new EventNotFound({ eventId })
      if (refused !== undefined) return yield* new WrongState({ eventId, state: refused, message: refusal(refused) })
    })

  return OutboxAdmin.of({
    identity: () => Effect.as(store.check, { server: "memory", database: "memory", schema: "memory" }),

    attend: (report) =>
      Effect.zipRight(
        store.check,
        Effect.map(Clock.currentTimeMillis, (at) => void pumps.set(report.id, { ...report, seenAt: at, lost: false }))
      ),

    leave: (id) =>
      Effect.zipRight(
        store.check,
        Effect.sync(() => void pumps.delete(id))
      ),

    pumps: () =>
      Effect.zipRight(
        store.check,
        Effect.map(Clock.currentTimeMillis, (now) =>
          Array.from(pumps.values(), (pump) => ({ ...pump, lost: now - pump.seenAt > 30_000 }))
            .filter(({ seenAt }) => now - seenAt <= 3_600_000)
            .sort((one, other) => one.startedAt - other.startedAt)
        )
      ),

    overview: ({ limit }) =>
      Effect.gen(function* () {
        const all = yield* rows
        const ofLane = Math.ceil(limit / Lane.count)
        const count = (rows: ReadonlyArray<MemoryRow>, limit: number): Count => ({
          value: Math.min(rows.length, limit),
          exact: rows.length < limit
        })
        const pending = all.filter(isPending)
        const parked = all.filter((row) => stateOf(row) === "parked")
        const lanes = Array.from({ length: Lane.count }, (_, lane) => {
          const ofThis = pending.filter((row) => row.lane === lane)
          const head = ofThis[0] === undefined ? undefined : headOf(ofThis[0])
          return {
            lane,
            pending: count(ofThis, ofLane),
            parked: count(
              parked.filter((row) => row.lane === lane),
              ofLane
            ),
            ...(head === undefined ? {} : { head })
          }
        }).filter(({ parked, pending }) => pending.value > 0 || parked.value > 0)
        const heads = lanes.flatMap(({ head }) => (head === undefined ? [] : [head.createdAt]))
        return {
          pending: count(pending, limit),
          waiting: count(
            pending.filter((row) => stateOf(row) === "waiting"),
            limit
          ),
          parked: count(parked, limit),
          ...(heads.length === 0 ? {} : { oldestPendingAt: Math.min(...heads) }),
          drawn: yield* store.drawn,
          lanes
        }
      }),

    events: (filter, options) =>
      Effect.gen(function* () {
        const [page, next] = yield* pageOf((yield* rows).filter(matches(filter)), options)
        return { events: page.map(summaryOf), ...next }
      }),

    event: (eventId) =>
      Effect.map(rows, (rows) =>
        Option.map(Option.fromNullable(rows.find((row) => row.eventId === eventId)), (row) =>
          defined({
            ...summaryOf(row),
            ...shownPayload(row.payload),
            traceparent: row.traceparent,
            failedAttempts: row.failedAttempts.map(defined)
          })
        )
      ),

    payload: (eventId) =>
      Effect.gen(function* () {
        const row = (yield* rows).find((row) => row.eventId === eventId)
        if (row === undefined) return yield* new EventNotFound({ eventId })
        const bytes = Buffer.byteLength(row.payload)
        if (bytes > Bounds.payloadBytes) return yield* new PayloadOmitted({ eventId, bytes })
        return { bytes, pieces: Stream.make(new TextEncoder().encode(row.payload)) }
      }),

    redrive: (filter, by) =>
      Effect.gen(function* () {
        const parked = (yield* rows).filter((row) => stateOf(row) === "parked" && matches(filter)(row))
        for (const { eventId } of parked) {
          yield* store.change(eventId, (row) => ({
            ...row,
            parkedAt: undefined,
            nextAttemptAt: undefined,
            attemptCount: 0
          }))
        }
        const what = filter.eventId === undefined ? { filter } : { eventId: filter.eventId }
        if (parked.length > 0) yield* write({ action: "redrive", ...by, ...what, affected: parked.length })
        return parked.length
      }),

    park: (eventId, by) =>
      Effect.zipRight(
        change(
          eventId,
          isPending,
          (state) => `The event is ${state}: only one that is pending can be parked`,
          (row, now) => ({
            ...row,
            parkedAt: now,
            nextAttemptAt: undefined,
            lastError: truncate(`Parked by an operator: ${by.reason}`, maxErrorLength)
          })
        ),
        write({ action: "park", ...by, eventId })
      ),

    discard: (eventId, by) =>
      Effect.zipRight(
        change(
          eventId,
          (row) => row.publishedAt === undefined,
          (state) => `The event is ${state}: only one that is not published can be discarded`,
          () => undefined
        ),
        Effect.zipRight(
          Effect.sync(() => discarded.add(eventId)),
          write({ action: "discard", ...by, eventId })
        )
      ),

    erase: (eventId, by) =>
      Effect.gen(function* () {
        const row = (yield* rows).find((row) => row.eventId === eventId)
        if (row === undefined && !discarded.has(eventId)) return yield* new EventNotFound({ eventId })
        if (row !== undefined) {
          yield* change(
            eventId,
            (row) => row.publishedAt !== undefined,
            Erasing.refusal,
            (row) => ({ ...row, payload: Erasing.marker(row), lastError: undefined, failedAttempts: [] })
          )
        }
        discarded.delete(eventId)
        yield* write({ action: "erase", ...by, eventId, affected: 1 })
        return Erasing.erased(defined({ eventId, controlVersion: row?.version, artifactRef: row && artifactOf(row) }))
      }),

    record: (action, by, about = {}) => Effect.zipRight(store.check, write({ action, ...by, ...defined(about) })),

    audit: (options) =>
      Effect.gen(function* () {
        yield* store.check
        const listed = options.changesOnly === true ? entries.filter(({ action }) => isChange(action)) : entries
        const [page, next] = yield* pageOf(listed, options)
        return { entries: page.map((entry) => Struct.omit(entry, "id")), ...next }
      }),

    prune: (retention, { limit }) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const published = (yield* rows).filter((row) => row.publishedAt !== undefined)
        const doomed =
          retention._tag === "Age"
            ? published.filter((row) => row.publishedAt! <= now - Duration.toMillis(retention.age))
            : published.slice(0, Math.max(published.length - retention.count, 0))
        const batch = doomed.slice(0, limit)
        for (const { eventId } of batch) yield* store.change(eventId, () => undefined)
        return { removed: batch.length, more: doomed.length > batch.length }
      })
  })
})

/**
 * Operates the outbox in memory. The audit log lives as long as the layer.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<OutboxAdmin, never, MemoryOutboxStore> = Layer.effect(OutboxAdmin, make)
