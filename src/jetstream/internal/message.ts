import { MsgHdrsImpl } from "@nats-io/transport-node"
import type { OutboundEvent } from "../../Sink.js"

/** The headers of the feed. Their values are percent-encoded where they are not visible ASCII. */
export const header = {
  /** The event id, by which the stream recognizes duplicates. */
  messageId: "Nats-Msg-Id",
  expectedStream: "Nats-Expected-Stream",
  /** With the value 0, the server rejects a second message on a subject. */
  expectedLastSubjectSequence: "Nats-Expected-Last-Subject-Sequence",
  /** Of an atomic batch: its id, the place of a message in it, and with which message it is stored. */
  batchId: "Nats-Batch-Id",
  batchSequence: "Nats-Batch-Sequence",
  batchCommit: "Nats-Batch-Commit",
  type: "Control-Event-Type",
  tenantId: "Control-Event-Tenant",
  traceparent: "traceparent"
} as const

/** Distinct for distinct texts, and safe in a header: ids and types may contain any text, even line breaks. */
export const headerValue = (value: string): string =>
  /^[!-$&-~]*$/.test(value)
    ? value
    : Array.from(Buffer.from(value), (byte) =>
        byte > 0x20 && byte < 0x7f && byte !== 0x25
          ? String.fromCharCode(byte)
          : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`
      ).join("")

/** Headers that are encoded once, and never looked up. */
class EncodedHeaders extends MsgHdrsImpl {
  private readonly encoded: Uint8Array
  constructor(text: string) {
    super()
    this.encoded = encode(text)
  }
  override encode(): Uint8Array {
    return this.encoded
  }
}

/** UTF-8. Small payloads share a buffer: one allocation each would be most of the garbage. */
export const encode = (text: string): Uint8Array => Buffer.from(text)

/** The place of a message in an atomic batch. */
export interface Place {
  readonly batch: string
  /** From 1 on, without gaps. */
  readonly sequence: number
  readonly isLast: boolean
}

export const headersOf = (
  { event, eventId, traceparent }: OutboundEvent,
  options: { readonly stream: string; readonly once: boolean; readonly place?: Place | undefined }
): EncodedHeaders => {
  const { place } = options
  const line = (name: string, value: string) => `${name}: ${value}\r\n`
  return new EncodedHeaders(
    `NATS/1.0\r\n${line(header.messageId, headerValue(eventId))}${line(header.expectedStream, options.stream)}` +
      line(header.type, headerValue(event.type)) +
      (event.tenant_id === undefined ? "" : line(header.tenantId, headerValue(event.tenant_id))) +
      (traceparent === undefined ? "" : line(header.traceparent, headerValue(traceparent))) +
      (options.once ? line(header.expectedLastSubjectSequence, "0") : "") +
      (place === undefined
        ? ""
        : line(header.batchId, place.batch) + line(header.batchSequence, String(place.sequence))) +
      (place?.isLast === true ? line(header.batchCommit, "1") : "") +
      "\r\n"
  )
}

/** The size of a message as the server counts it, in bytes. */
export const sizeOf = (headers: MsgHdrsImpl, payload: Uint8Array): number => headers.encode().length + payload.length
