import { DeliverPolicy, type JsMsg } from "@nats-io/jetstream"
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type * as ControlVersion from "../../ControlVersion.js"
import type { Batch, SinkUnavailable } from "../../Sink.js"
import * as Message from "./message.js"
import { request, type Stream } from "./stream.js"

/** The stream was made anew since it was looked at. */
export class MadeAnew extends Data.TaggedError("MadeAnew") {}

/**
 * Finds events in the stream that it no longer knows as duplicates.
 *
 * A row says nothing of an attempt whose outcome nobody learnt: a pump may have published it and died. As long as the
 * stream knows its ids, that is the stream's to answer. An event that was appended longer ago than the duplicate window
 * is looked for among the messages since. What was read is kept, as numbers, so that each message is read once.
 */
export interface LookBack {
  /** Whether an event of the batch is older than the stream's memory of ids. */
  readonly isNeeded: (stream: Stream, batch: Batch) => boolean
  /** The sequences of those events of the batch that are in the stream and older than its memory of ids. */
  readonly find: (
    stream: Stream,
    batch: Batch
  ) => Effect.Effect<ReadonlyMap<number, ControlVersion.ControlVersion>, SinkUnavailable | MadeAnew>
}

/** What is known of a stretch of the stream: every message from an instant on, up to a sequence. */
interface Index {
  readonly created: string
  from: number
  /** The sequences of the stretch's first message and of the next one to read; unknown until one was read. */
  first: number | undefined
  next: number | undefined
  /** What was read of an older stretch that is to be joined to this one: from an instant on, up to a sequence. */
  older: { readonly from: number; first: number | undefined; next: number | undefined } | undefined
  /** When the stretch reached the end of the stream. */
  completeAt: number
  /** The deadline of the last batch that it served. */
  usedUntil: number
  /** By the hash of the message id: the sequence, or several. */
  readonly sequences: Map<number, number | ReadonlyArray<number>>
}

/** For clocks that differ, and for publishes that wait in a socket. */
const slackOf = (stream: Stream) => Math.min(30_000, stream.duplicateWindow / 4)

/** What was published from this instant on, the stream knows as a duplicate until the batch's deadline. */
const horizonOf = (stream: Stream, batch: Batch) => batch.deadline - stream.duplicateWindow + slackOf(stream)

const oldestOf = (batch: Batch) => {
  let oldest = Infinity
  for (const { createdAt } of batch.events) if (createdAt < oldest) oldest = createdAt
  return oldest
}

/** FNV-1a, cut to what V8 keeps without a box. */
const hash = (text: string): number => {
  let value = 0x811c9dc5
  for (let index = 0; index < text.length; index++) value = Math.imul(value ^ text.charCodeAt(index), 0x01000193)
  return value & 0x3fffffff
}

const sequencesOf = (index: Index, id: string): ReadonlyArray<number> => {
  const found = index.sequences.get(hash(id)) ?? []
  return typeof found === "number" ? [found] : found
}

const add = (index: Index, message: JsMsg) => {
  const id = message.headers?.get(Message.header.messageId) ?? ""
  const before = sequencesOf(index, id)
  // A stretch that was interrupted is read again.
  if (before.includes(message.seq)) return
  index.sequences.set(hash(id), before.length === 0 ? message.seq : [...before, message.seq].sort((a, b) => a - b))
}

/** How long the server keeps a consumer that nobody reads from, in milliseconds. */
const consumerLife = 10_000

type Start = { readonly sequence: number } | { readonly instant: number }

export const make = (name: string): Effect.Effect<LookBack> =>
  Effect.map(Effect.makeSemaphore(1), (one) => {
    let index: Index | undefined
    const doing = `Cannot read the stream "${name}" to see which events it holds already`

    /** Reads the headers of the messages from a start up to a sequence. */
    const read = (stream: Stream, start: Start, to: number, each: (message: JsMsg) => void) =>
      Effect.gen(function* () {
        const consumer = yield* request(name, doing, () =>
          stream.manager.jetstream().consumers.get(name, {
            headers_only: true,
            inactive_threshold: consumerLife,
            ...("sequence" in start
              ? { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: start.sequence }
              : { deliver_policy: DeliverPolicy.StartTime, opt_start_time: new Date(start.instant).toISOString() })
          })
        )
        const { num_pending: pending } = yield* request(name, doing, () => consumer.info())
        if (pending === 0) return
        const messages = yield* Effect.acquireRelease(
          request(name, doing, () => consumer.consume({ max_messages: 5_000 })),
          (messages) => Effect.promise(() => messages.close())
        )
        yield* request(name, doing, async () => {
          for await (const message of messages) {
            if (message.seq <= to) each(message)
            if (message.seq >= to || message.info.pending === 0) break
          }
        })
      }).pipe(Effect.scoped)

    /** Extends the index back to an instant. What was read is kept where this is interrupted. */
    const extendBack = (stream: Stream, index: Index, from: number) =>
      Effect.gen(function* () {
        if (from >= index.from) return
        if (index.older === undefined || from < index.older.from)
          index.older = { from, first: undefined, next: undefined }
        const { older } = index
        const end = index.first
        if (end !== undefined && (older.next ?? 0) < end) {
          const start = older.next === undefined ? { instant: older.from } : { sequence: older.next }
          yield* read(stream, start, end - 1, (message) => {
            add(index, message)
            older.next = message.seq + 1
            older.first ??= message.seq
          })
        }
        index.first = older.first ?? end
        index.from = older.from
        index.older = undefined
      })

    /** Extends the index to the end of the stream. What was read is kept where this is interrupted. */
    const extend = (stream: Stream, index: Index) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const { created, state } = yield* request(name, doing, () => stream.manager.streams.info(name))
        if (created !== stream.created) return yield* new MadeAnew()
        const start = index.next === undefined ? { instant: index.from } : { sequence: index.next }
        if (state.messages > 0 && (index.next ?? 0) <= state.last_seq) {
          yield* read(stream, start, state.last_seq, (message) => {
            add(index, message)
            index.first ??= message.seq
            index.next = Math.max(index.next ?? 0, message.seq + 1)
          })
        }
        index.first ??= state.last_seq + 1
        index.next = state.last_seq + 1
        index.completeAt = now
      })

    /** The first message of the stream with an id. */
    const confirm = (stream: Stream, index: Index, id: string) =>
      Effect.gen(function* () {
        for (const seq of sequencesOf(index, id)) {
          const message = yield* request(name, doing, () => stream.manager.streams.getMessage(name, { seq }))
          if (message?.header.get(Message.header.messageId) === id) return seq as ControlVersion.ControlVersion
        }
        return undefined
      })

    return {
      isNeeded: (stream, batch) => {
        if (oldestOf(batch) <= horizonOf(stream, batch)) return true
        // Other lanes may have old events still.
        if (index !== undefined && batch.deadline - index.usedUntil > stream.duplicateWindow) index = undefined
        return false
      },

      find: (stream, batch) =>
        Effect.gen(function* () {
          const horizon = horizonOf(stream, batch)
          const known = new Map<number, ControlVersion.ControlVersion>()
          const from = Math.max(oldestOf(batch) - slackOf(stream), 0)
          if (index?.created !== stream.created) {
            index = {
              created: stream.created,
              from,
              first: undefined,
              next: undefined,
              older: undefined,
              completeAt: 0,
              usedUntil: 0,
              sequences: new Map()
            }
          }
          const current = index
          current.usedUntil = Math.max(current.usedUntil, batch.deadline)
          yield* extendBack(stream, current, from)
          if (current.completeAt <= horizon) yield* extend(stream, current)
          yield* Effect.forEach(
            batch.events.entries(),
            ([position, event]) =>
              event.createdAt > horizon
                ? Effect.void
                : Effect.map(confirm(stream, current, Message.headerValue(event.eventId)), (sequence) => {
                    if (sequence !== undefined) known.set(position, sequence)
                  }),
            { discard: true, concurrency: 16 }
          )
          return known
        }).pipe(one.withPermits(1))
    }
  })
