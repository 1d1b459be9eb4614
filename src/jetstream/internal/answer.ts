import type { Msg } from "@nats-io/transport-node"
import * as ControlVersion from "../../ControlVersion.js"
import { EventFailed, EventRejected, published, SinkUnavailable, type Outcome } from "../../Sink.js"

/** The server's answer to one publish. */
export type Answer =
  | Exclude<Outcome, { readonly _tag: "NotAttempted" }>
  /**
   * No stream takes the subject, or another one does. The stream's configuration tells whether event or stream is
   * wrong.
   */
  | { readonly _tag: "Unrouted" }
  /** The stream accepts no message of this size. */
  | { readonly _tag: "Oversized"; readonly rejected: EventRejected }
  /** Ask the stream for the event's sequence. */
  | { readonly _tag: "StoredBefore" }
  | SinkUnavailable

interface Acknowledgement {
  readonly stream?: string
  readonly seq?: number
  readonly duplicate?: boolean
  /** Of an atomic batch: its id, and how many messages were stored. */
  readonly batch?: string
  readonly count?: number
  readonly error?: { readonly code?: number; readonly err_code?: number; readonly description?: string }
}

// Numbers and texts of nats-server's server/errors.json.
const code = {
  insufficientResources: 10023,
  noAccountResources: 10002,
  memoryResources: 10028,
  storageResources: 10047,
  messageTooLarge: 10054,
  headersTooLarge: 10097,
  storeFailed: 10077,
  streamNotFound: 10059,
  streamMismatch: 10060,
  wrongLastSequence: 10071,
  wrongLastSequenceUnknown: 10164,
  notEnabled: 10076,
  notEnabledForAccount: 10039,
  sealed: 10109,
  batchesOff: 10174,
  batchTooLarge: 10199
}

const full: ReadonlySet<number> = new Set([
  code.insufficientResources,
  code.noAccountResources,
  code.memoryResources,
  code.storageResources
])

const misconfigured: ReadonlySet<number> = new Set([code.notEnabled, code.notEnabledForAccount, code.sealed])

const unavailable = (reason: SinkUnavailable["reason"], message: string) =>
  new SinkUnavailable({ sink: "jetstream", reason, message })

const noResponders = 503

/** Reads the answer to a publish of an event. `once`: the publish required an unused subject. */
export const read = (reply: Msg, eventId: string, once: boolean): Answer => {
  if (reply.headers?.code === noResponders) return { _tag: "Unrouted" }
  let ack: Acknowledgement
  try {
    ack = reply.json<Acknowledgement>()
  } catch {
    return unavailable("defect", `Something that is not a stream answered a publish: ${reply.string().slice(0, 100)}`)
  }
  if (ack.error === undefined) {
    return ControlVersion.is(ack.seq)
      ? published(ack.seq, ack.duplicate === true)
      : unavailable("defect", `An acknowledgement without a sequence: ${reply.string().slice(0, 100)}`)
  }
  return refusal(ack.error, eventId, once)
}

/** What the server said to the last message of an atomic batch. */
export type BatchAnswer =
  /** All of it is stored, under sequences without a gap. */
  | { readonly _tag: "Stored"; readonly last: ControlVersion.ControlVersion }
  /** It is not known to be stored as a batch: what each event's outcome is, today's path finds out. */
  | {
      readonly _tag: "Rejected"
      readonly reason: string
      /** How many messages the server takes in a batch, if it says so. */
      readonly atMost: number | undefined
      /** Whether the stream takes no batches at all. */
      readonly isOff: boolean
    }

/** Reads the answer to a batch of so many messages. */
export const readBatch = (reply: Msg, batch: string, count: number): BatchAnswer => {
  const rejected = (reason: string, number?: number): BatchAnswer => ({
    _tag: "Rejected",
    reason,
    atMost: number === code.batchTooLarge ? Number(/\d+/.exec(reason)?.[0]) || undefined : undefined,
    isOff: number === code.batchesOff
  })
  if (reply.headers?.code === noResponders) return rejected("no server answers for its last subject")
  let ack: Acknowledgement
  try {
    ack = reply.json<Acknowledgement>()
  } catch {
    return rejected(`Something that is not a stream answered: ${reply.string().slice(0, 100)}`)
  }
  const { error, seq } = ack
  if (error !== undefined) return rejected(`${error.description} (${error.err_code})`, error.err_code)
  // A server without batches stores their messages one by one, and answers for the last alone.
  if (ack.batch !== batch || ack.count !== count || !ControlVersion.is(seq) || seq < count) {
    return rejected(`an acknowledgement that is not the batch's: ${reply.string().slice(0, 100)}`)
  }
  return { _tag: "Stored", last: seq }
}

const refusal = (error: NonNullable<Acknowledgement["error"]>, eventId: string, once: boolean): Answer => {
  const { code: status = 0, description = "no description", err_code: number = 0 } = error
  const message = `${description} (${number})`
  if (once && number === code.wrongLastSequence) {
    const sequence = Number(/wrong last sequence: (\d+)/.exec(description)?.[1])
    return ControlVersion.is(sequence) ? published(sequence, true) : { _tag: "StoredBefore" }
  }
  if (once && number === code.wrongLastSequenceUnknown) return { _tag: "StoredBefore" }
  if (number === code.streamNotFound || number === code.streamMismatch) return { _tag: "Unrouted" }
  if (number === code.messageTooLarge) return { _tag: "Oversized", rejected: new EventRejected({ eventId, message }) }
  if (number === code.headersTooLarge) return new EventRejected({ eventId, message })
  if (number === code.storeFailed && description.includes("per subject")) {
    return once ? { _tag: "StoredBefore" } : new EventRejected({ eventId, message })
  }
  if (full.has(number) || (number === code.storeFailed && /maximum|no space|resource/.test(description))) {
    return unavailable("full", message)
  }
  if (misconfigured.has(number)) return unavailable("misconfigured", message)
  // An unknown error rejects no event for good.
  return status >= 500 ? unavailable("unreachable", message) : new EventFailed({ eventId, message })
}
