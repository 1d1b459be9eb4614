import type * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Tracer from "effect/Tracer"
import type { OutboundEvent, Outcome } from "../Sink.js"
import * as Traceparent from "./traceparent.js"

type Events = Arr.NonEmptyReadonlyArray<OutboundEvent>

/** As many links as OpenTelemetry's SDKs keep. */
const maxLinks = 128

const spanOf = (traceparent: string | undefined): Option.Option<Tracer.ExternalSpan> =>
  traceparent === undefined ? Option.none() : Traceparent.decode(traceparent)

/**
 * Events that were appended together are published in the append's trace. Other batches have their own trace with
 * links.
 */
const placeOf = (events: Events): Pick<Tracer.SpanOptions, "parent" | "root" | "links"> => {
  const [first] = events
  if (events.every(({ traceparent }) => traceparent === first.traceparent)) {
    return Option.match(spanOf(first.traceparent), {
      onNone: () => ({ root: true }),
      onSome: (parent) => ({ parent })
    })
  }
  const links: Array<Tracer.SpanLink> = []
  for (const traceparent of new Set(events.map((event) => event.traceparent))) {
    if (links.length === maxLinks) break
    const span = spanOf(traceparent)
    if (Option.isSome(span)) links.push({ _tag: "SpanLink", span: span.value, attributes: {} })
  }
  return { root: true, links }
}

const describe = (span: Tracer.Span, outcomes: ReadonlyArray<Outcome>) => {
  const counts: Record<Outcome["_tag"], number> = { Published: 0, EventRejected: 0, EventFailed: 0, NotAttempted: 0 }
  for (const { _tag } of outcomes) counts[_tag]++
  span.attribute("controlpublish.published", counts.Published)
  span.attribute("controlpublish.rejected", counts.EventRejected)
  span.attribute("controlpublish.failed", counts.EventFailed)
  span.attribute("controlpublish.not_attempted", counts.NotAttempted)
}

/** Adds a span for the publish of a batch if tracing is on. It has the number of events and nothing from them. */
export const withPublishSpan =
  (sink: string, events: Events) =>
  <E, R>(publish: Effect.Effect<ReadonlyArray<Outcome>, E, R>): Effect.Effect<ReadonlyArray<Outcome>, E, R> =>
    Effect.flatMap(Traceparent.isTraced, (isTraced) => {
      if (!isTraced) return publish
      const options: Tracer.SpanOptions = {
        ...placeOf(events),
        kind: "producer",
        captureStackTrace: false,
        attributes: {
          "controlpublish.sink": sink,
          "messaging.operation.name": "publish",
          "messaging.batch.message_count": events.length
        }
      }
      return Effect.useSpan("Pump.publish", options, (span) =>
        publish.pipe(
          Effect.tap((outcomes) => Effect.sync(() => describe(span, outcomes))),
          Effect.withParentSpan(span),
          Effect.annotateLogs({ trace_id: span.traceId, span_id: span.spanId })
        )
      )
    })
