import { DeliverPolicy, type JsMsg } from "@nats-io/jetstream"
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type * as ControlVersion from "../../ControlVersion.js"
import type { Batch, SinkUnavailable } from "../../Sink.js"
import * as Message from "./message.js"
import { behind, firstFrom, request, type Stream } from "./stream.js"

/** The stream was re-created since the last look. */
export class MadeAnew extends Data.TaggedError("MadeAnew") {}

/**
 * Finds events in the stream that are older than its duplicate window.
 *
 * A row does not record an attempt whose outcome is unknown: a pump may have published it and died. Within the
 * duplicate window the stream itself detects the duplicate. An event that was appended before the window is looked up
 * among the messages since its append. What was read is kept as numbers, so that each message is read once.
 */
export interface LookBack {
  /** Whether an event of the batch is older than the duplicate window. */
  readonly isNeeded: (stream: Stream, batch: Batch) => boolean
  /** The sequences of the events of the batch that are in the stream and older than the duplicate window. */
  readonly find: (
    stream: Stream,
    batch: Batch
  ) => Effect.Effect<ReadonlyMap<number, ControlVersion.ControlVersion>, SinkUnavailable | MadeAnew>
}

/** A stretch of the stream: every message from an instant on, read up to a sequence. */
interface Stretch {
  readonly from: number
  /** The first sequence of the stretch. */
  readonly first: number
  /** The next sequence to read. */
  next: number
}

/** What is known of the end of the stream. */
interface Index {
  readonly created: string
  stretch: Stretch
  /** An older stretch that is being read, and then joined to this one. */
  older: Stretch | undefined
  /** When the stretch reached the end of the stream. */
  completeAt: number
  /** The deadline of the last batch that it served. */
  usedUntil: number
  /** By the hash of the message id: the sequence, or several. */
  readonly sequences: Map<number, number | ReadonlyArray<number>>
}

/** Allows for clocks that differ, and for publishes that wait in a socket. */
const slackOf = (stream: Stream) => Math.min(30_000, stream.duplicateWindow / 4)

/** Until the batch's deadline, the stream detects duplicates of what was published from this instant on. */
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

/** How long to wait before asking a server again that lags behind the leader. */
const catchUp = "250 millis"

export const make = (name: string): Effect.Effect<LookBack> =>
  Effect.map(Effect.makeSemaphore(1), (one) => {
    let index: Index | undefined
    const doing = `Cannot read the stream "${name}" to see which events it holds already`

    const look = (stream: Stream) =>
      Effect.gen(function* () {
        const { created, state } = yield* request(name, doing, () => stream.manager.streams.info(name))
        return created === stream.created ? state : yield* new MadeAnew()
      })

    /** The sequence of the first message since an instant. */
    const since = (stream: Stream, instant: number) =>
      Effect.gen(function* () {
        const state = yield* look(stream)
        let from = Math.max(state.first_seq, 1)
        let to = state.last_seq + 1
        while (from < to) {
          const middle = Math.floor((from + to) / 2)
          const message = yield* firstFrom(stream, name, doing, middle)
          if (message !== null && message.seq < to && message.time.getTime() < instant) from = message.seq + 1
          else to = middle
        }
        return from
      })

    /** Reads the headers of messages until one server of the stream has no more, or a sequence is reached. */
    const readSome = (stream: Stream, from: number, to: number, each: (message: JsMsg) => void) =>
      Effect.gen(function* () {
        const consumer = yield* request(name, doing, () =>
          stream.manager.jetstream().consumers.get(name, {
            headers_only: true,
            inactive_threshold: consumerLife,
            deliver_policy: DeliverPolicy.StartSequence,
            opt_start_seq: from
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
            // A server that lags behind starts with the messages that it has.
            if (message.seq >= from && message.seq <= to) each(message)
            if (message.seq >= to || message.info.pending === 0) break
          }
        })
      }).pipe(Effect.scoped)

    /**
     * Reads a stretch up to a sequence. Any server of the stream may answer a consumer, even one that is catching up
     * and mistakes its own end for the end of the stream. Only the leader knows the end.
     */
    const read = (stream: Stream, index: Index, stretch: Stretch, to: number) =>
      Effect.gen(function* () {
        while (stretch.next <= to) {
          yield* readSome(stream, stretch.next, to, (message) => {
            add(index, message)
            stretch.next = Math.max(stretch.next, message.seq + 1)
          })
          if (stretch.next > to) return
          const rest = yield* firstFrom(stream, name, doing, stretch.next)
          if (rest === null || rest.seq > to) stretch.next = to + 1
          else yield* Effect.sleep(catchUp)
        }
      })

    /** Extends the index back to an instant. An interruption keeps what was read. */
    const extendBack = (stream: Stream, index: Index, from: number) =>
      Effect.gen(function* () {
        if (from >= index.stretch.from) return
        if (index.older === undefined || from < index.older.from) {
          const first = yield* since(stream, from)
          index.older = { from, first, next: first }
        }
        const { older, stretch } = index
        yield* read(stream, index, older, stretch.first - 1)
        index.stretch = { from: older.from, first: Math.min(older.first, stretch.first), next: stretch.next }
        index.older = undefined
      })

    /** Extends the index to the end of the stream. An interruption keeps what was read. */
    const extend = (stream: Stream, index: Index) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const { last_seq: last } = yield* look(stream)
        yield* read(stream, index, index.stretch, last)
        index.completeAt = now
      })

    /** The first message of the stream with an id. */
    const confirm = (stream: Stream, index: Index, id: string) =>
      Effect.gen(function* () {
        for (const seq of sequencesOf(index, id)) {
          const message = yield* firstFrom(stream, name, doing, seq)
          if (message?.seq === seq && message.header.get(Message.header.messageId) === id) {
            return seq as ControlVersion.ControlVersion
          }
          // The message is gone, or the leader does not have it yet.
          if (message === null && (yield* look(stream)).last_seq < seq) return yield* behind(name, seq)
        }
        return undefined
      })

    return {
      isNeeded: (stream, batch) => {
        if (oldestOf(batch) <= horizonOf(stream, batch)) return true
        // Other lanes may still have old events.
        if (index !== undefined && batch.deadline - index.usedUntil > stream.duplicateWindow) index = undefined
        return false
      },

      find: (stream, batch) =>
        Effect.gen(function* () {
          const horizon = horizonOf(stream, batch)
          const known = new Map<number, ControlVersion.ControlVersion>()
          const from = Math.max(oldestOf(batch) - slackOf(stream), 0)
          if (index?.created !== stream.created) {
            const first = yield* since(stream, from)
            index = {
              created: stream.created,
              stretch: { from, first, next: first },
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
