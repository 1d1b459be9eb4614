import type { OutboxError, Settlement } from "../OutboxStore.js"
import type { SinkUnavailable } from "../Sink.js"

/** Why a pass failed as a whole. No event was charged an attempt. */
export type PumpError = SinkUnavailable | OutboxError

/** What a drain did. */
export interface DrainReport {
  /** Batches that were written back. */
  readonly batches: number
  readonly published: number
  /** Attempts that failed for one event alone, which waits for its retry. */
  readonly failed: number
  readonly parked: number
}

export const nothing: DrainReport = { batches: 0, published: 0, failed: 0, parked: 0 }

export const add = (self: DrainReport, that: DrainReport): DrainReport => ({
  batches: self.batches + that.batches,
  published: self.published + that.published,
  failed: self.failed + that.failed,
  parked: self.parked + that.parked
})

export const isProgress = (report: DrainReport): boolean => report.published + report.failed + report.parked > 0

export const of = (settlement: Settlement): DrainReport => ({
  batches: 1,
  published: settlement.published.length,
  failed: settlement.failed.length,
  parked: settlement.parked.length
})
