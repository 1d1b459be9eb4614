import { notAttempted, SinkUnavailable } from "../../Sink.js"
import type { Result } from "./publishing.js"

/**
 * The number of events that may be too large by themselves. With a lower number a few of them would stop all others.
 */
const few = 10

/** How many of the last events count. */
const remembered = 1_000

/** What became of the last events. */
export interface Recent {
  /** Parked for their size. */
  readonly parked: number
  readonly taken: number
}

export const nothing: Recent = { parked: 0, taken: 0 }

/** Older events count half as much, and then less. */
const aged = ({ parked, taken }: Recent): Recent =>
  parked + taken > remembered ? { parked: parked >> 1, taken: taken >> 1 } : { parked, taken }

/**
 * Tells large events from a stream whose largest message is too small. A stream that rejects more than ten events for
 * their size, and more than it takes, over one batch or many, is misconfigured, and no further event is parked.
 */
export const judge = (name: string, result: Result, before: Recent): readonly [Result, Recent] => {
  const { oversized } = result
  if (oversized.length === 0 && before.parked === 0) return [result, nothing]
  const now = result.outcomes.filter((outcome) => outcome._tag === "Published" && !outcome.duplicate).length
  const taken = before.taken + now
  const parked = before.parked + oversized.length
  if (parked <= Math.max(few, taken)) return [result, aged({ parked, taken })]
  const known = aged({ parked: before.parked, taken })
  if (oversized.length === 0) return [result, known]
  const outcomes = [...result.outcomes]
  for (const index of oversized) outcomes[index] = notAttempted
  const stopped = new SinkUnavailable({
    sink: "jetstream",
    reason: "misconfigured",
    message: `The stream "${name}" rejects more events for their size than it takes: raise its max_msg_size, or set it to -1`
  })
  return [{ ...result, outcomes, oversized: [], stopped: result.stopped ?? stopped }, known]
}
