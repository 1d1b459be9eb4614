import * as Lane from "../../Lane.js"
import { crowd, type AfterParked } from "../../OutboxStore.js"
import type { FailedAttempt } from "../../OutboxViews.js"

/**
 * A row of the outbox in memory.
 *
 * @since 0.1.0
 * @category rows
 */
export interface MemoryRow {
  readonly id: number
  readonly lane: Lane.Lane
  readonly eventId: string
  readonly type: string
  readonly tenantId: string | undefined
  readonly stackId: string | undefined
  readonly orderingKey: string
  readonly payload: string
  readonly traceparent: string | undefined
  readonly createdAt: number
  readonly attemptCount: number
  /** The last 20, newest first. */
  readonly failedAttempts: ReadonlyArray<FailedAttempt>
  readonly lastError: string | undefined
  readonly lastAttemptAt: number | undefined
  readonly nextAttemptAt: number | undefined
  readonly parkedAt: number | undefined
  readonly version: number | undefined
  readonly publishedAt: number | undefined
}

/** The lane of a key. Its hash is not PostgreSQL's: the lanes of the two stores differ. */
export const laneOf = (orderingKey: string): Lane.Lane => {
  let hash = 0
  for (let index = 0; index < orderingKey.length; index++) hash = (hash * 31 + orderingKey.charCodeAt(index)) | 0
  return (hash >>> 0) % Lane.count
}

export const isPending = (row: MemoryRow) => row.publishedAt === undefined && row.parkedAt === undefined

export const isParked = (row: MemoryRow) => row.publishedAt === undefined && row.parkedAt !== undefined

export const isWaiting = (row: MemoryRow, now: number) => isPending(row) && (row.nextAttemptAt ?? -Infinity) > now

/** The rows that a pump may publish, in the order of their ids. */
export const publishable = (rows: ReadonlyArray<MemoryRow>, now: number, afterParked: AfterParked) => {
  const waiting = new Set(rows.filter((row) => isWaiting(row, now)).map((row) => row.orderingKey))
  const parked = new Set<string>()
  return rows.filter((row) => {
    if (isParked(row)) parked.add(row.orderingKey)
    return isPending(row) && !waiting.has(row.orderingKey) && (afterParked === "pass" || !parked.has(row.orderingKey))
  })
}

export const crowdedLanes = (rows: ReadonlyArray<MemoryRow>) => {
  const pending = rows.filter(isPending).map((row) => row.lane)
  return new Set(pending.filter((lane) => pending.filter((other) => other === lane).length >= crowd))
}
