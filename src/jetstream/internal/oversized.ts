import { notAttempted, SinkUnavailable } from "../../Sink.js"
import type { Result } from "./publishing.js"

/** So many events can be too large by themselves. A lower number would let a few of them stop all others. */
const few = 10

/**
 * Tells large events from a stream whose largest message is too small. A stream that rejects more than ten events for
 * their size, and more than it takes, is misconfigured, and no further event is parked.
 *
 * `before`: the events that were parked for their size since the stream last took one. Answers with the new number.
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
