import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { EventRejected, published, SinkUnavailable, type Batch, type Outcome } from "../../Sink.js"
import type { Wanted } from "./findings.js"
import type * as Link from "./link.js"
import type * as Publishing from "./publishing.js"
import * as Stream from "./stream.js"
import type * as Subject from "./subject.js"

interface Settings {
  readonly wanted: Wanted
  readonly template: Subject.Template
}

interface Ready {
  readonly link: Link.Link
  readonly stream: Stream.Stream
}

/** Settles events of a batch, given by their indexes, and returns their outcomes. */
type Settle = (
  settings: Settings,
  ready: Ready,
  batch: Batch,
  indexes: ReadonlyArray<number>
) => Effect.Effect<ReadonlyArray<readonly [index: number, Outcome]>, SinkUnavailable>

/** Asks for the sequences of events that the stream already had. */
const resolve: Settle = (settings, { stream }, batch, indexes) =>
  Effect.forEach(indexes, (index) =>
    Effect.map(
      Stream.sequenceOn(stream, settings.wanted.name, settings.template.subjectOf(batch.events[index]!)),
      (sequence) => [index, published(sequence, true)] as const
    )
  )

/** Decides the outcome of events that no stream took: whether the event or the stream is at fault. */
const judge: Settle = (settings, { link }, batch, indexes) =>
  Effect.map(Stream.look(link, settings.wanted, false), ([stream]) =>
    indexes.flatMap((index) => {
      const { eventId } = batch.events[index]!
      const subject = settings.template.subjectOf(batch.events[index]!)
      if (Stream.takes(stream, subject)) return []
      const message = `Its subject ${subject} is none of the stream's, which takes ${stream.subjects.join(", ")}`
      return [[index, new EventRejected({ eventId, message })] as const]
    })
  )

/** Returns the outcomes of a batch, after asking the stream what only it can tell. */
export const conclude = (
  settings: Settings,
  ready: Ready,
  batch: Batch,
  result: Publishing.Result
): Effect.Effect<ReadonlyArray<Outcome>, SinkUnavailable> =>
  Effect.gen(function* () {
    const outcomes = [...result.outcomes]
    let { stopped } = result
    for (const [indexes, settle] of [
      [result.storedBefore, resolve],
      [result.unrouted, judge]
    ] as const) {
      if (indexes.length === 0) continue
      const settled = yield* Effect.either(settle(settings, ready, batch, indexes))
      if (Either.isRight(settled)) for (const [index, outcome] of settled.right) outcomes[index] = outcome
      else stopped ??= settled.left
    }
    if (outcomes.every((outcome) => outcome._tag === "NotAttempted")) return yield* stopped ?? noLeader()
    if (stopped !== undefined) yield* Effect.logWarning("A batch was published in part", stopped)
    return outcomes
  })

const noLeader = () =>
  new SinkUnavailable({
    sink: "jetstream",
    reason: "unreachable",
    message: "The stream exists and takes the subject, but no server answered: it has no leader"
  })
