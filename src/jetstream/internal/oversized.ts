import { notAttempted, SinkUnavailable } from "../../Sink.js"
import type { Result } from "./publishing.js"

/**
 * The number of events that may be too large by themselves. With a lower number a few of them would stop all others.
 */
const few = 10

/**
 * Distinguishes large events from a stream whose largest message is too small. A stream that rejects more than ten
 * events for their size, and more than it accepts, is misconfigured, and no further event is parked.
 *
 * `before` is the number of events parked for their size since the stream last accepted one. Returns the new number.
 */
export const judge = (name: string, result: Result, before: number): readonly [Result, number] => {
  const { oversized } = result
  if (oversized.length === 0 && before === 0) return [result, 0]
  const taken = result.outcomes.filter((outcome) => outcome._tag === "Published" && !outcome.duplicate).length
  if (oversized.length === 0) return [result, taken > 0 ? 0 : before]
  const parked = oversized.length + (taken > 0 ? 0 : before)
  if (parked <= Math.max(few, taken)) return [result, taken > 0 ? 0 : parked]
  const outcomes = [...result.outcomes]
  for (const index of oversized) outcomes[index] = notAttempted
  const stopped = new SinkUnavailable({
    sink: "jetstream",
    reason: "misconfigured",
    message: `The stream "${name}" rejects more events for their size than it takes: raise its max_msg_size, or set it to -1`
  })
  return [{ ...result, outcomes, oversized: [], stopped: result.stopped ?? stopped }, before]
}
