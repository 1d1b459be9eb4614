/**
 * An outbox in memory, for tests: the store and the wake-up, with transactions and savepoints, without a database.
 *
 * @since 0.1.0
 */
import { makeWithTransaction } from "@effect/sql/SqlClient"
import * as Arr from "effect/Array"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Bounds from "../internal/bounds.js"
import type { EventId } from "../EventId.js"
import type * as Lane from "../Lane.js"
import type { FailedAttempt } from "../OutboxViews.js"
import {
  DuplicateEventId,
  NotInTransaction,
  OutboxError,
  OutboxStore,
  type FollowingOptions,
  type Settlement
} from "../OutboxStore.js"
import { WakeUp } from "../WakeUp.js"
import {
  crowdedLanes,
  isParked,
  isPending,
  isWaiting,
  laneOf,
  publishable,
  type MemoryRow
} from "./internal/memoryRow.js"
import { MemoryTransaction, type Transaction } from "./internal/memoryTransaction.js"

/**
 * What tests can see and do beyond the ports.
 *
 * @since 0.1.0
 * @category models
 */
export class MemoryOutboxStore extends Context.Tag("controlpublish/testing/MemoryOutboxStore")<
  MemoryOutboxStore,
  {
    /** The committed rows in the order of their ids. */
    readonly rows: Effect.Effect<ReadonlyArray<MemoryRow>>
    /** Commits a row without validation, as a foreign writer might. */
    readonly insert: (row: {
      readonly eventId: string
      readonly payload: string
      readonly orderingKey?: string
      readonly type?: string
    }) => Effect.Effect<void>
    /**
     * Changes a committed row, or removes it if the change returns `undefined`. Waits for the claim that holds its
     * lane. Returns whether the row exists.
     */
    readonly change: (
      eventId: string,
      change: (row: MemoryRow) => MemoryRow | undefined
    ) => Effect.Effect<boolean, OutboxError>
    /** Makes every operation fail with the error, as if the database were gone. `undefined` ends that. */
    readonly breakWith: (error: OutboxError | undefined) => Effect.Effect<void>
    /** Fails while `breakWith` is in effect. */
    readonly check: Effect.Effect<void, OutboxError>
    /** Ids that were drawn. */
    readonly drawn: Effect.Effect<number>
  }
>() {}

export type { MemoryRow }

const make = Effect.sync(() => {
  const rows = new Map<number, MemoryRow>()
  const reserved = new Set<string>()
  const heldLanes = new Set<Lane.Lane>()
  const latches = new Set<Effect.Latch>()
  const released = new Set<Effect.Latch>()
  let drawn = 0
  let broken: OutboxError | undefined

  const wakeAll = () => latches.forEach((latch) => latch.unsafeOpen())
  const check = Effect.suspend(() => broken ?? Effect.void)
  const all = () => Array.from(rows.values())
  const find = (eventId: string) => all().find((row) => row.eventId === eventId)
  const replace = (row: MemoryRow) => {
    rows.set(row.id, row)
  }

  const commitRow = (
    row: Pick<
      MemoryRow,
      "eventId" | "type" | "tenantId" | "stackId" | "orderingKey" | "payload" | "traceparent" | "createdAt"
    >
  ) => {
    replace({
      ...row,
      id: ++drawn,
      lane: laneOf(row.orderingKey),
      attemptCount: 0,
      failedAttempts: [],
      lastError: undefined,
      lastAttemptAt: undefined,
      nextAttemptAt: undefined,
      parkedAt: undefined,
      version: undefined,
      publishedAt: undefined
    })
  }

  const untilReleased = Effect.acquireUseRelease(
    Effect.sync(() => {
      const latch = Effect.unsafeMakeLatch(false)
      released.add(latch)
      return latch
    }),
    (latch) => latch.await,
    (latch) => Effect.sync(() => released.delete(latch))
  )

  const truncate = (transaction: Transaction, length: number) =>
    transaction.buffer.splice(length).forEach(({ event }) => reserved.delete(event.event_id))

  const inMemory = makeWithTransaction<MemoryTransaction, Transaction>({
    transactionTag: MemoryTransaction,
    spanAttributes: [],
    acquireConnection: Effect.sync(() => [undefined, { owner: rows, buffer: [], savepoints: new Map() }] as const),
    begin: () => Effect.void,
    savepoint: (transaction, id) => Effect.sync(() => transaction.savepoints.set(id, transaction.buffer.length)),
    rollback: (transaction) => Effect.sync(() => truncate(transaction, 0)),
    rollbackSavepoint: (transaction, id) =>
      Effect.sync(() => truncate(transaction, transaction.savepoints.get(id) ?? 0)),
    commit: (transaction) =>
      Effect.sync(() => {
        for (const { event, orderingKey, payload, traceparent } of transaction.buffer) {
          const createdAt = Date.parse(event.created_at ?? "")
          commitRow({
            eventId: event.event_id,
            type: event.type,
            tenantId: event.tenant_id,
            stackId: event.stack_id,
            orderingKey,
            payload,
            traceparent,
            createdAt
          })
        }
        if (transaction.buffer.length > 0) wakeAll()
      })
  })

  const store: OutboxStore["Type"] = {
    append: (newRows) =>
      Effect.flatMap(
        Effect.serviceOption(MemoryTransaction),
        (transaction): Effect.Effect<void, NotInTransaction | DuplicateEventId | OutboxError> => {
          if (Option.isNone(transaction)) return new NotInTransaction({})
          if (broken !== undefined) return broken
          const [{ buffer, owner }] = transaction.value
          if (owner !== rows) {
            return new NotInTransaction({ reason: "OtherDatabase", database: "another store in memory" })
          }
          const reason = Bounds.firstRefused(newRows)
          if (reason !== undefined) return new OutboxError({ message: reason, retryable: false })
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

    // Nothing here fails but the effect itself.
    withTransaction: (effect) => inMemory(effect) as typeof effect,

    probe: ({ afterParked, now }) =>
      Effect.map(check, () => ({
        lanes: Array.from(new Set(publishable(all(), now, afterParked).map((row) => row.lane))),
        crowded: crowdedLanes(all()),
        nextAttemptAt: all()
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
          () =>
            Effect.sync(() => {
              taken.forEach((lane) => heldLanes.delete(lane))
              released.forEach((latch) => latch.unsafeOpen())
            })
        )
        const handed = new Set<number>()
        /** The first publishable rows of the lanes, after those that were handed out. */
        const hand = ({ afterParked, limit, maxBytes, now }: FollowingOptions) => {
          let bytes = 0
          const last = Math.max(0, ...handed)
          const claimed = publishable(all(), now, afterParked)
            .filter((row) => taken.includes(row.lane) && row.id > last)
            .slice(0, limit)
            .filter((row) => {
              const fits = bytes < maxBytes
              bytes += Buffer.byteLength(row.payload)
              return fits
            })
          for (const { id } of claimed) handed.add(id)
          return claimed.map((row) => ({ ...row, id: String(row.id), ...Bounds.withoutRefused(row.payload) }))
        }
        const claimed = hand({ afterParked, limit, maxBytes, now })
        if (!Arr.isNonEmptyArray(claimed)) return { _tag: "LanesEmpty" }
        const settle = ({ failed, now, parked, published }: Settlement) =>
          Effect.map(check, () => {
            const attempted = (id: string) => {
              const row = rows.get(Number(id))!
              return { ...row, attemptCount: row.attemptCount + 1, lastAttemptAt: now }
            }
            const failedOnce = (id: string, attempt: FailedAttempt) => {
              const row = attempted(id)
              const failedAttempts = [attempt, ...row.failedAttempts].slice(0, 20)
              return { ...row, lastError: attempt.error, failedAttempts }
            }
            for (const { id, version } of published) {
              replace({ ...attempted(id), version, publishedAt: now, nextAttemptAt: undefined, parkedAt: undefined })
            }
            for (const { error, id, nextAttemptAt } of failed) {
              replace({ ...failedOnce(id, { at: now, error, nextAttemptAt }), nextAttemptAt })
            }
            for (const { error, id } of parked) {
              replace({ ...failedOnce(id, { at: now, error }), nextAttemptAt: undefined, parkedAt: now })
            }
          })
        return {
          _tag: "Claim",
          rows: claimed,
          following: (options) =>
            Effect.map(check, () => {
              const last = Math.max(...handed)
              const skipped = all().some(
                (row) => isPending(row) && taken.includes(row.lane) && row.id <= last && !handed.has(row.id)
              )
              return skipped ? [] : hand(options)
            }),
          record: ({ now, published }) => settle({ now, published, failed: [], parked: [] }),
          settle
        }
      }),

    backlog: ({ limit }) =>
      Effect.map(check, () => {
        const pending = all().filter(isPending)
        const count = (value: number) => ({ value: Math.min(value, limit), exact: value < limit })
        return {
          pending: count(pending.length),
          waiting: count(pending.filter((row) => row.nextAttemptAt !== undefined).length),
          parked: count(all().filter(isParked).length),
          oldestPendingAt: pending.reduce<number | undefined>(
            (least, row) => Math.min(least ?? Infinity, row.createdAt),
            undefined
          )
        }
      }),

    parked: ({ limit }) =>
      Effect.map(check, () =>
        all()
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
      rows: Effect.sync(all),
      insert: ({ eventId, orderingKey, payload, type }) =>
        Effect.clockWith((clock) =>
          Effect.sync(() => {
            reserved.add(eventId)
            commitRow({
              eventId,
              type: type ?? "inserted",
              tenantId: undefined,
              stackId: undefined,
              orderingKey: orderingKey ?? "",
              payload,
              traceparent: undefined,
              createdAt: clock.unsafeCurrentTimeMillis()
            })
            wakeAll()
          })
        ),
      change: (eventId, change) =>
        Effect.gen(function* () {
          for (;;) {
            yield* check
            const row = find(eventId)
            if (row === undefined) return false
            if (heldLanes.has(row.lane)) {
              yield* untilReleased
              continue
            }
            const changed = change(row)
            if (changed === undefined) rows.delete(row.id)
            else replace(changed)
            wakeAll()
            return true
          }
        }),
      check,
      drawn: Effect.sync(() => drawn),
      breakWith: (error) =>
        Effect.sync(() => {
          broken = error
        })
    })
  )
})

/**
 * Provides an empty outbox in memory. Use `Outbox.withTransaction` for transactions.
 *
 * @example
 * import { MemoryOutboxStore, MemorySink } from "controlpublish/testing"
 * import { Layer } from "effect"
 *
 * export const Test = Layer.merge(MemorySink.layer, MemoryOutboxStore.layer)
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<OutboxStore | WakeUp | MemoryOutboxStore> = Layer.effectContext(make)
