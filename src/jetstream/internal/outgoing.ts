import type { MsgHdrs } from "@nats-io/transport-node"
import { EventRejected, type OutboundEvent } from "../../Sink.js"
import type { Link } from "./link.js"
import * as Message from "./message.js"
import { takes, type Stream } from "./stream.js"
import * as Subject from "./subject.js"

/** Where events go, and how they are addressed. */
export interface Destination {
  readonly link: Link
  readonly stream: Stream
  readonly wanted: { readonly name: string }
  readonly template: Subject.Template
  /** Whether every event has its own subject, which the stream accepts once. */
  readonly once: boolean
}

/** An event as it is sent. */
export interface Outgoing {
  readonly _tag: "Outgoing"
  readonly subject: string
  readonly payload: Uint8Array
  readonly headers: MsgHdrs
}

/** The event is for a subject that the stream does not take. */
export interface Unrouted {
  readonly _tag: "Unrouted"
}

/** Makes the message of an event, or answers why it cannot be sent. `place`: its place in an atomic batch. */
export const compose = (
  event: OutboundEvent,
  { link, once, stream, template, wanted }: Destination,
  place?: Message.Place
): Outgoing | Unrouted | EventRejected => {
  const { eventId } = event
  const subject = template.subjectOf(event)
  if (subject.length > Subject.maxLength) {
    const message = `Its subject has ${subject.length} characters, at most ${Subject.maxLength} are taken`
    return new EventRejected({ eventId, message })
  }
  // Another subscriber may listen there, and then no reply would say that no stream takes it.
  if (!stream.takesAll && !takes(stream, subject)) return { _tag: "Unrouted" }
  const headers = Message.headersOf(event, { stream: wanted.name, once, place })
  const payload = Message.encode(event.payload)
  const size = Message.sizeOf(headers, payload)
  if (size > link.maxPayload) {
    const message = `It has ${size} bytes with its headers, the server takes at most ${link.maxPayload} (max_payload)`
    return new EventRejected({ eventId, message })
  }
  return { _tag: "Outgoing", subject, payload, headers }
}
