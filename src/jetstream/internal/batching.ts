import { nuid, type Msg } from "@nats-io/transport-node"
import * as Effect from "effect/Effect"
import type { ControlVersion } from "../../ControlVersion.js"
import { notAttempted, published, SinkUnavailable, type Batch, type Outcome } from "../../Sink.js"
import * as Answer from "./answer.js"
import { toUnavailable } from "./link.js"
import { compose, type Outgoing } from "./outgoing.js"
import * as Publishing from "./publishing.js"

/** What became of a batch, and whether the stream was found to take no atomic batches. */
export interface Result extends Publishing.Result {
  readonly isOff: boolean
}

/** What became of an atomic batch. */
type Stored =
  | Answer.BatchAnswer
  /** Nobody knows whether it is stored. */
  | { readonly _tag: "Lost"; readonly reason: SinkUnavailable }

/** Publishes by atomic batches. */
export interface Batching {
  /**
   * Publishes a batch as the stream's atomic batches, whose messages are stored together and in order. What cannot be
   * stored so is published message by message, which finds out what became of each event.
   */
  readonly run: (batch: Batch, target: Publishing.Target) => Effect.Effect<Result>
}

/** How many messages a server takes in a batch, unless it is told otherwise. */
const atMost = 1_000

/** How many batches of one sink are in flight. A stream has 50 for all its publishers. */
const maxInFlight = 16

const disconnected = (): SinkUnavailable =>
  new SinkUnavailable({ sink: "jetstream", reason: "unreachable", message: "The connection was lost" })

export const make = (): Batching => {
  let size = atMost
  let inFlight = 0

  /** The messages of events, or undefined if one of them cannot be sent. */
  const messagesOf = (
    batch: Batch,
    indexes: ReadonlyArray<number>,
    id: string,
    target: Publishing.Target
  ): ReadonlyArray<Outgoing> | undefined => {
    const messages: Array<Outgoing> = []
    for (const [position, index] of indexes.entries()) {
      const place = { batch: id, sequence: position + 1, isLast: position === indexes.length - 1 }
      const outgoing = compose(batch.events[index]!, target, place)
      if (outgoing._tag !== "Outgoing") return undefined
      messages.push(outgoing)
    }
    return messages
  }

  /** Sends the messages of one atomic batch in one turn of the event loop, and waits for the answer to the last. */
  const store = (
    batch: Batch,
    messages: ReadonlyArray<Outgoing>,
    id: string,
    { begunAt, link }: Publishing.Target
  ): Effect.Effect<Stored> =>
    Effect.flatMap(Effect.clock, (clock) => {
      let ticket: number | undefined
      return Effect.async<Stored>((resume) => {
        const end = (stored: Stored) => {
          ticket = undefined
          resume(Effect.succeed(stored))
        }
        const reason = !link.isOpen()
          ? disconnected()
          : clock.unsafeCurrentTimeMillis() >= batch.deadline
            ? Publishing.late()
            : undefined
        if (reason !== undefined) {
          end({ _tag: "Lost", reason })
          return
        }
        try {
          for (const [position, { headers, payload, subject }] of messages.entries()) {
            if (position < messages.length - 1) link.post(subject, payload, headers)
            else {
              ticket = link.send(subject, payload, headers, {
                answered: (reply: Msg) => end(Answer.readBatch(reply, id, messages.length)),
                lost: (reason) => end({ _tag: "Lost", reason })
              })
            }
          }
        } catch (cause) {
          // The server forgets a batch without its last message. What cannot be sent is then told from the others.
          end(
            link.isOpen()
              ? { _tag: "Rejected", reason: `cannot be sent: ${String(cause)}`, atMost: undefined, isOff: false }
              : { _tag: "Lost", reason: toUnavailable("Cannot publish")(cause) }
          )
        }
      }).pipe(
        Effect.timeoutTo({
          duration: Publishing.patience(batch, begunAt, clock.unsafeCurrentTimeMillis()),
          onSuccess: (stored) => stored,
          onTimeout: (): Stored => ({ _tag: "Lost", reason: Publishing.late() })
        }),
        Effect.onExit(() =>
          Effect.sync(() => {
            if (ticket === undefined) return
            link.forget(ticket)
            // What the socket still holds may not be sent once another pump has the lane.
            link.abandon(Publishing.late())
          })
        )
      )
    })

  const runChunks = (batch: Batch, target: Publishing.Target): Effect.Effect<Result> =>
    Effect.gen(function* () {
      const outcomes: Array<Outcome> = batch.events.map((_, index) => {
        const sequence = target.known.get(index)
        return sequence === undefined ? notAttempted : published(sequence, true)
      })
      const left = Array.from(batch.events.keys()).filter((index) => !target.known.has(index))

      /** What is left goes message by message. */
      const separately = (isOff: boolean) => {
        const known = new Map<number, ControlVersion>()
        outcomes.forEach((outcome, index) => {
          if (outcome._tag === "Published") known.set(index, outcome.version)
        })
        return Effect.map(Publishing.run(batch, { ...target, known }), (result) => ({
          ...result,
          isOff,
          outcomes: result.outcomes.map((outcome, index) => (known.has(index) ? outcomes[index]! : outcome))
        }))
      }

      while (left.length > 0) {
        const indexes = left.slice(0, size)
        const id = nuid.next()
        const messages = indexes.length < 2 ? undefined : messagesOf(batch, indexes, id, target)
        if (messages === undefined) return yield* separately(false)
        const stored = yield* store(batch, messages, id, target)
        if (stored._tag === "Rejected") {
          size = Math.min(size, Math.max(stored.atMost ?? size, 1))
          yield* Effect.logDebug(`A batch is published message by message: ${stored.reason}`)
          return yield* separately(stored.isOff)
        }
        if (stored._tag === "Lost") return { ...nothingElse, outcomes, stopped: stored.reason }
        for (const [position, index] of indexes.entries()) {
          outcomes[index] = published((stored.last - indexes.length + 1 + position) as ControlVersion)
        }
        left.splice(0, indexes.length)
      }
      return { ...nothingElse, outcomes, stopped: undefined }
    })

  return {
    run: (batch, target) =>
      Effect.suspend(() => {
        if (inFlight >= maxInFlight) {
          return Effect.map(Publishing.run(batch, target), (result) => ({ ...result, isOff: false }))
        }
        inFlight++
        return Effect.ensuring(
          runChunks(batch, target),
          Effect.sync(() => {
            inFlight--
          })
        )
      })
  }
}

const nothingElse = { unrouted: [], storedBefore: [], oversized: [], isOff: false } as const
