import * as Lane from "../../Lane.js"
import type { FailedAttempt } from "../../OutboxViews.js"

/**
 * A row of the outbox in memory.
 *
 * @since 1.0.0
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
