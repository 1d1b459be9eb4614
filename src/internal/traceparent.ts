/** W3C trace context, as rows and messages carry it. */
import * as Context from "effect/Context"
import * as DefaultServices from "effect/DefaultServices"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Tracer from "effect/Tracer"

const format = /^[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})/

/** Returns `undefined` for a span that cannot be referred to, such as one made while tracing is disabled. */
export const encode = (span: Tracer.AnySpan): string | undefined => {
  const traceparent = `00-${span.traceId}-${span.spanId}-${span.sampled ? "01" : "00"}`
  return format.test(traceparent) ? traceparent : undefined
}

/** The span that a traceparent names, if it is valid and recorded. */
export const decode = (traceparent: string): Option.Option<Tracer.ExternalSpan> => {
  const [, traceId = "", spanId = "", flags = "0"] = format.exec(traceparent) ?? []
  return (Number.parseInt(flags, 16) & 1) === 0
    ? Option.none()
    : Option.some(Tracer.externalSpan({ traceId, spanId, sampled: true }))
}

/** The tracer of a program that has none: its spans go nowhere. */
const untraced = Context.get(DefaultServices.liveServices, Tracer.Tracer)

/** Whether tracing is on. If not, no traceparent need be read. */
export const isTraced: Effect.Effect<boolean> = Effect.map(Effect.tracer, (tracer) => tracer !== untraced)
