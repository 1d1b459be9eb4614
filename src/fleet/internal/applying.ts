import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as ControlEvent from "../../ControlEvent.js"
import * as EventId from "../../EventId.js"
import * as Traceparent from "../../internal/traceparent.js"
import type { AppliedEvents, Delivery } from "../AppliedEvents.js"
import type { ArtifactStore } from "../ArtifactStore.js"
import type { CannotApply, Delivered, HandleError, Handlers } from "../Handlers.js"
import type { FeedEvent, Source } from "../Source.js"
import type { Outcome } from "./applyReport.js"
import { Halt, type ApplierError } from "./halt.js"
import type { Status } from "./applierStatus.js"

/** What events are applied with. */
export interface Parts<R> {
  readonly source: Source["Type"]
  readonly applied: AppliedEvents["Type"]
  readonly artifacts: ArtifactStore["Type"]
  readonly handlers: Handlers<R>
  readonly cannotApply: "halt" | "setAside"
  readonly status: Status
  /** Records that something was applied. */
  readonly succeeded: Effect.Effect<void>
}

/** Most bytes of artifacts in memory at the same time, plus one artifact. */
const maxBytes = 8 * 1024 * 1024

/** Continues the trace of the append, if tracing is on. A span of several events links to each trace. */
const traced =
  (source: string, events: ReadonlyArray<Prepared>) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.flatMap(Traceparent.isTraced, (isTraced) => {
      if (!isTraced) return effect
      const parents = events.flatMap(({ traceparent }) =>
        traceparent === undefined ? [] : Option.toArray(Traceparent.decode(traceparent))
      )
      const [parent] = events.length === 1 ? parents : []
      const { eventId, version } = events[events.length - 1]!.delivery
      return Effect.withSpan(effect, "Applier.apply", {
        ...(parent === undefined ? { root: true } : { parent }),
        ...(events.length === 1
          ? {}
          : { links: parents.map((span) => ({ _tag: "SpanLink" as const, span, attributes: {} })) }),
        kind: "consumer",
        captureStackTrace: false,
        attributes: {
          "controlpublish.event_id": eventId,
          "controlpublish.control_version": version,
          "controlpublish.source": source,
          ...(events.length === 1 ? {} : { "controlpublish.events": events.length })
        }
      })
    })

/** The event of a text, valid. */
export const decode = ({ text, version }: FeedEvent) =>
  ControlEvent.parse(text).pipe(
    Either.flatMap((value) =>
      ControlEvent.validatePublished(
        typeof value === "object" && value !== null && !Array.isArray(value)
          ? { ...value, control_version: version }
          : value
      )
    )
  )

/** An event that is ready for its transaction. */
interface Prepared {
  readonly delivery: Delivery
  readonly delivered: Delivered
  readonly traceparent: string | undefined
}

/** Prepares what the transaction will do, with everything that can be done before it opens. */
const prepare = <R>({ applied, artifacts }: Parts<R>, delivered: FeedEvent, feed: string) =>
  Effect.gen(function* () {
    const event = yield* decode(delivered)
    const { artifact_ref, checksum, event_id: eventId } = event
    const artifact =
      artifact_ref === undefined || checksum === undefined
        ? undefined
        : yield* artifacts.get({ artifact_ref, checksum }).pipe(
            // The artifact of an event that was applied may be gone by now.
            Effect.catchAll((error) =>
              Effect.flatMap(applied.isApplied(eventId), (isApplied) => (isApplied ? Effect.void : error))
            )
          )
    const prepared: Prepared = {
      delivery: { eventId, version: delivered.version, feed },
      delivered: { event, artifact: artifact ?? undefined },
      traceparent: delivered.traceparent
    }
    return prepared
  })

const handleOne = <R>({ handlers, source }: Parts<R>, prepared: Prepared): Effect.Effect<void, HandleError, R> =>
  traced(source.name, [prepared])(handlers.handle(prepared.delivered))

/** Hands events to the handlers, together if they take batches. */
const handle = <R>(parts: Parts<R>, events: ReadonlyArray<Prepared>): Effect.Effect<void, HandleError, R> => {
  const { handlers, source } = parts
  if (handlers.handleAll === undefined) {
    return Effect.forEach(events, (event) => handleOne(parts, event), { discard: true })
  }
  return traced(source.name, events)(handlers.handleAll(events.map(({ delivered }) => delivered)))
}

const applyOne = <R>(parts: Parts<R>, delivered: FeedEvent, feed: string): Effect.Effect<Outcome, ApplierError, R> => {
  const aside = (
    eventId: string | undefined,
    error: CannotApply | ControlEvent.InvalidEvent
  ): Effect.Effect<Outcome, ApplierError> =>
    // Without an id there is nothing to mark.
    parts.cannotApply === "halt" || eventId === undefined || !EventId.isEventId(eventId)
      ? Effect.fail(error)
      : Effect.zipRight(
          Effect.logWarning(`Event ${delivered.version} is set aside: it can never be applied here`),
          parts.applied.setAside({ eventId, version: delivered.version, feed }, error.message)
        )
  return prepare(parts, delivered, feed).pipe(
    Effect.flatMap((prepared) =>
      parts.applied
        .applyOnce(prepared.delivery, handleOne(parts, prepared))
        .pipe(Effect.catchTag("CannotApply", (error) => aside(prepared.delivery.eventId, error)))
    ),
    Effect.catchTag("InvalidEvent", (error) => aside(error.eventId, error))
  )
}

const settle = <R>(
  { source, status, succeeded }: Parts<R>,
  events: ReadonlyArray<FeedEvent>,
  outcomes: ReadonlyArray<Outcome>
) =>
  Effect.gen(function* () {
    const { version } = events[outcomes.length - 1]!
    yield* succeeded
    yield* status.settled(version, outcomes)
    yield* Effect.mapError(source.acknowledge(version), (error) => new Halt(undefined, error))
    return outcomes
  })

/** Applies as many of the events as possible in one transaction, and returns their results. */
export const applySome = <R>(
  parts: Parts<R>,
  events: ReadonlyArray<FeedEvent>,
  feed: string
): Effect.Effect<ReadonlyArray<Outcome>, Halt, R> =>
  Effect.gen(function* () {
    const ready: Array<Prepared> = []
    for (let bytes = 0; events.length > 1 && ready.length < events.length && bytes < maxBytes;) {
      const prepared = yield* Effect.either(prepare(parts, events[ready.length]!, feed))
      if (Either.isLeft(prepared)) break
      ready.push(prepared.right)
      bytes += prepared.right.delivered.artifact?.length ?? 0
    }
    if (ready.length > 1) {
      const together = yield* Effect.either(
        parts.applied.applyAll(
          ready.map(({ delivery }) => delivery),
          (fresh) =>
            handle(
              parts,
              fresh.map((index) => ready[index]!)
            )
        )
      )
      if (Either.isRight(together)) return yield* settle(parts, events, together.right)
      const error = together.left
      if (error._tag === "AppliedEventsError" && error.retryable) return yield* Effect.fail(new Halt(undefined, error))
    }
    // Alone, the culprit is known, and no event before it waits.
    const alone = events.slice(0, Math.max(ready.length, 1))
    return yield* Effect.forEach(alone, (event) =>
      applyOne(parts, event, feed).pipe(
        Effect.mapError((error) => new Halt(event, error)),
        Effect.flatMap((outcome) => settle(parts, [event], [outcome]))
      )
    ).pipe(Effect.map((outcomes) => outcomes.flat()))
  })
