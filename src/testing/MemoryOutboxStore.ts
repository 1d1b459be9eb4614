/**
 * An outbox in memory, for tests: the store and the wake-up, with transactions and savepoints, without a database.
 *
 * @since 1.0.0
 */
import { makeWithTransaction } from "@effect/sql/SqlClient"
import * as Arr from "effect/Array"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { EventId } from "../EventId.js"
import * as Lane from "../Lane.js"
import type { OutboxError } from "../OutboxStore.js"
import {
  crowd,
  DuplicateEventId,
  NotInTransaction,
  OutboxStore,
  type AfterParked,
  type NewRow
} from "../OutboxStore.js"
import { WakeUp } from "../WakeUp.js"

/**
 * What tests see and do beside the ports.
 *
 * @since 1.0.0
 * @category models
 */
export class MemoryOutboxStore extends Context.Tag("controlpublish/testing/MemoryOutboxStore")<
  MemoryOutboxStore,
  {
    /** The committed rows in the order of their ids. */
    readonly rows: Effect.Effect<ReadonlyArray<MemoryRow>>
    /** Commits a row as somebody might who knows nothing of the contract. */
    readonly insert: (row: {
      readonly eventId: string
      readonly payload: string
      readonly orderingKey?: string
    }) => Effect.Effect<void>
    /** Makes the store fail from now on, as a database that is gone, until it is given `undefined`. */
    readonly breakWith: (error: OutboxError | undefined) => Effect.Effect<void>
  }
>() {}

/**
 * @since 1.0.0
 * @category rows
 */
export interface MemoryRow {
  readonly id: number
  readonly lane: Lane.Lane
  readonly eventId: string
  readonly type: string
  readonly orderingKey: string
  readonly payload: string
  readonly traceparent: string | undefined
  readonly createdAt: number
  readonly attemptCount: number
  readonly lastError: string | undefined
  readonly nextAttemptAt: number | undefined
  readonly parkedAt: number | undefined
  readonly version: number | undefined
  readonly publishedAt: number | undefined
}

interface Transaction {
  readonly buffer: Array<NewRow>
  readonly savepoints: Map<number, number>
}

class MemoryTransaction extends Context.Tag("controlpublish/testing/MemoryTransaction")<
  MemoryTransaction,
  readonly [transaction: Transaction, depth: number]
>() {}

const laneOf = (orderingKey: string): Lane.Lane => {
  let hash = 0
  for (let index = 0; index < orderingKey.length; index++) hash = (hash * 31 + orderingKey.charCodeAt(index)) | 0
  return (hash >>> 0) % Lane.count
}

const isPending = (row: MemoryRow) => row.publishedAt === undefined && row.parkedAt === undefined

const isParked = (row: MemoryRow) => row.publishedAt === undefined && row.parkedAt !== undefined

const isWaiting = (row: MemoryRow, now: number) => isPending(row) && (row.nextAttemptAt ?? -Infinity) > now

const make = Effect.sync(() => {
  const rows: Array<MemoryRow> = []
  const reserved = new Set<string>()
  const heldLanes = new Set<Lane.Lane>()
  const latches = new Set<Effect.Latch>()
  let broken: OutboxError | undefined

  const wakeAll = () => latches.forEach((latch) => latch.unsafeOpen())
  const check = Effect.suspend(() => broken ?? Effect.void)
  const find = (eventId: string) => rows.find((row) => row.eventId === eventId)
  const replace = (row: MemoryRow) => {
    rows[row.id - 1] = row
  }

  const commitRow = (
    row: Pick<MemoryRow, "eventId" | "type" | "orderingKey" | "payload" | "traceparent" | "createdAt">
  ) => {
    rows.push({
      ...row,
      id: rows.length + 1,
      lane: laneOf(row.orderingKey),
      attemptCount: 0,
      lastError: undefined,
      nextAttemptAt: undefined,
      parkedAt: undefined,
      version: undefined,
      publishedAt: undefined
    })
  }

  const truncate = (transaction: Transaction, length: number) =>
    transaction.buffer.splice(length).forEach(({ event }) => reserved.delete(event.event_id))

  const inMemory = makeWithTransaction<MemoryTransaction, Transaction>({
    transactionTag: MemoryTransaction,
    spanAttributes: [],
    acquireConnection: Effect.sync(() => [undefined, { buffer: [], savepoints: new Map() }] as const),
    begin: () => Effect.void,
    savepoint: (transaction, id) => Effect.sync(() => transaction.savepoints.set(id, transaction.buffer.length)),
    rollback: (transaction) => Effect.sync(() => truncate(transaction, 0)),
    rollbackSavepoint: (transaction, id) =>
      Effect.sync(() => truncate(transaction, transaction.savepoints.get(id) ?? 0)),
    commit: (transaction) =>
      Effect.sync(() => {
        for (const { event, orderingKey, payload, traceparent } of transaction.buffer) {
          const createdAt = Date.parse(event.created_at ?? "")
          commitRow({ eventId: event.event_id, type: event.type, orderingKey, payload, traceparent, createdAt })
        }
        if (transaction.buffer.length > 0) wakeAll()
      })
  })

  const publishable = (now: number, afterParked: AfterParked) => {
    const waiting = new Set(rows.filter((row) => isWaiting(row, now)).map((row) => row.orderingKey))
    const parked = new Set<string>()
    return rows.filter((row) => {
      if (isParked(row)) parked.add(row.orderingKey)
      return isPending(row) && !waiting.has(row.orderingKey) && (afterParked === "pass" || !parked.has(row.orderingKey))
    })
  }

  const crowdedLanes = () => {
    const pending = rows.filter(isPending).map((row) => row.lane)
    return new Set(pending.filter((lane) => pending.filter((other) => other === lane).length >= crowd))
  }

  const store: OutboxStore["Type"] = {
    append: (newRows) =>
      Effect.flatMap(
        Effect.serviceOption(MemoryTransaction),
        (transaction): Effect.Effect<void, NotInTransaction | DuplicateEventId | OutboxError> => {
          if (Option.isNone(transaction)) return new NotInTransaction()
          if (broken !== undefined) return broken
          const [{ buffer }] = transaction.value
          const length = buffer.length
          for (const row of newRows) {
            const eventId = row.event.event_id
            if (reserved.has(eventId)) {
              truncate(transaction.value[0], length)
              return new DuplicateEventId({ eventId })
            }
            reserved.add(eventId)
            buffer.push(row)
          }
          return Effect.void
        }
      ),

    withTransaction: (effect) =>
      // Nothing here fails but the effect itself.
      inMemory(effect) as typeof effect,

    probe: ({ afterParked, now }) =>
      Effect.map(check, () => ({
        lanes: Array.from(new Set(publishable(now, afterParked).map((row) => row.lane))),
        crowded: crowdedLanes(),
        nextAttemptAt: rows
          .filter((row) => isWaiting(row, now))
          .reduce<number | undefined>((least, row) => Math.min(least ?? Infinity, row.nextAttemptAt!), undefined)
      })),

    claim: ({ afterParked, lanes, limit, maxBytes, now }) =>
      Effect.gen(function* () {
        yield* check
        const taken = lanes.filter((lane) => !heldLanes.has(lane))
        if (taken.length === 0) return { _tag: "LanesHeld" }
        yield* Effect.acquireRelease(
          Effect.sync(() => taken.forEach((lane) => heldLanes.add(lane))),
          () => Effect.sync(() => taken.forEach((lane) => heldLanes.delete(lane)))
        )
        let bytes = 0
        const claimed = publishable(now, afterParked)
          .filter((row) => taken.includes(row.lane))
          .slice(0, limit)
          .filter((row) => {
            const fits = bytes < maxBytes
            bytes += Buffer.byteLength(row.payload)
            return fits
          })
          .map((row) => ({ ...row, id: String(row.id) }))
        if (!Arr.isNonEmptyArray(claimed)) return { _tag: "LanesEmpty" }
        return {
          _tag: "Claim",
          rows: claimed,
          settle: ({ failed, now, parked, published }) =>
            Effect.map(check, () => {
              const attempted = (id: string) => {
                const row = rows[Number(id) - 1]!
                return { ...row, attemptCount: row.attemptCount + 1 }
              }
              for (const { id, version } of published) {
                replace({ ...attempted(id), version, publishedAt: now, nextAttemptAt: undefined, parkedAt: undefined })
              }
              for (const { error, id, nextAttemptAt } of failed) {
                replace({ ...attempted(id), lastError: error, nextAttemptAt })
              }
              for (const { error, id } of parked) {
                replace({ ...attempted(id), lastError: error, nextAttemptAt: undefined, parkedAt: now })
              }
            })
        }
      }),

    backlog: ({ limit }) =>
      Effect.map(check, () => {
        const pending = rows.filter(isPending)
        const count = (value: number) => ({ value: Math.min(value, limit), exact: value < limit })
        return {
          pending: count(pending.length),
          waiting: count(pending.filter((row) => row.nextAttemptAt !== undefined).length),
          parked: count(rows.filter(isParked).length),
          oldestPendingAt: pending.reduce<number | undefined>(
            (least, row) => Math.min(least ?? Infinity, row.createdAt),
            undefined
          )
        }
      }),

    parked: ({ limit }) =>
      Effect.map(check, () =>
        rows
          .filter(isParked)
          .slice(0, limit)
          .map((row) => ({
            eventId: row.eventId,
            type: row.type,
            orderingKey: row.orderingKey,
            attemptCount: row.attemptCount,
            parkedAt: row.parkedAt!,
            error: row.lastError ?? ""
          }))
      ),

    redrive: (eventIds) =>
      Effect.map(check, () => {
        const parked = eventIds
          .map(find)
          .filter((row) => row !== undefined)
          .filter(isParked)
        parked.forEach((row) => replace({ ...row, parkedAt: undefined, nextAttemptAt: undefined, attemptCount: 0 }))
        if (parked.length > 0) wakeAll()
        return parked.map((row) => row.eventId as EventId)
      })
  }

  return Context.make(OutboxStore, store).pipe(
    Context.add(WakeUp, {
      arm: Effect.acquireRelease(
        Effect.sync(() => {
          const latch = Effect.unsafeMakeLatch(false)
          latches.add(latch)
          return latch
        }),
        (latch) => Effect.sync(() => latches.delete(latch))
      ).pipe(Effect.map((latch) => latch.await))
    }),
    Context.add(MemoryOutboxStore, {
      rows: Effect.sync(() => rows.slice()),
      insert: ({ eventId, orderingKey, payload }) =>
        Effect.clockWith((clock) =>
          Effect.sync(() => {
            reserved.add(eventId)
            commitRow({
              eventId,
              type: "inserted",
              orderingKey: orderingKey ?? "",
              payload,
              traceparent: undefined,
              createdAt: clock.unsafeCurrentTimeMillis()
            })
            wakeAll()
          })
        ),
      breakWith: (error) =>
        Effect.sync(() => {
          broken = error
        })
    })
  )
})

/**
 * An empty outbox in memory. `Outbox.withTransaction` gives its transactions.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer: Layer.Layer<OutboxStore | WakeUp | MemoryOutboxStore> = Layer.effectContext(make)
