import * as Effect from "effect/Effect"
import type { Msg } from "@nats-io/transport-node"
import {
  byKey,
  EventFailed,
  EventRejected,
  notAttempted,
  published,
  SinkUnavailable,
  type Batch,
  type OutboundEvent,
  type Outcome
} from "../../Sink.js"
import type { ControlVersion } from "../../ControlVersion.js"
import * as Answer from "./answer.js"
import { toUnavailable, type Link, type Waiter } from "./link.js"
import * as Message from "./message.js"
import { takes, type Stream } from "./stream.js"
import * as Subject from "./subject.js"

/**
 * How long a batch waits for acknowledgements beyond its deadline, in milliseconds. The pump gives up a publish after
 * four thirds of the time to the deadline: acknowledged events have to be reported by then.
 */
const graceOf = (timeToDeadline: number) => Math.min(Math.max(timeToDeadline / 4, 250), 1_000)

export interface Target {
  readonly link: Link
  readonly stream: Stream
  readonly wanted: { readonly name: string }
  readonly template: Subject.Template
  /** Whether every event has its own subject, which the stream accepts once. */
  readonly once: boolean
  /** The sequences of events known to be in the stream, by their index in the batch. */
  readonly known: ReadonlyMap<number, ControlVersion>
  /** When the publish began, in milliseconds since the epoch. */
  readonly begunAt: number
}

/** The result of a batch. `NotAttempted` means that the event is not known to be in the stream. */
export interface Result {
  readonly outcomes: ReadonlyArray<Outcome>
  /** The events that no stream took, or a stream other than ours. */
  readonly unrouted: ReadonlyArray<number>
  /** The events that the stream has, but whose sequences have to be asked for. */
  readonly storedBefore: ReadonlyArray<number>
  /** The events that exceed the stream's largest message. */
  readonly oversized: ReadonlyArray<number>
  /** Why the batch stopped, if it did. */
  readonly stopped: SinkUnavailable | undefined
}

const late = () =>
  new SinkUnavailable({ sink: "jetstream", reason: "timeout", message: "The stream did not acknowledge in time" })

/**
 * Publishes a batch: different keys concurrently, and the events of one key one after another, each after the
 * acknowledgement of the one before. Acknowledgements drive it, without a fiber for each key.
 */
export const run = (
  batch: Batch,
  { begunAt, known, link, once, stream, template, wanted }: Target
): Effect.Effect<Result> =>
  Effect.flatMap(Effect.clock, (clock) => {
    const outcomes: Array<Outcome> = batch.events.map(() => notAttempted)
    const unrouted: Array<number> = []
    const storedBefore: Array<number> = []
    const oversized: Array<number> = []
    let stopped: SinkUnavailable | undefined
    let active = 0
    let finished: () => void = () => {}

    const stop = (reason: SinkUnavailable) => {
      stopped ??= reason
    }

    /** Sends the event, or returns its outcome without sending it. */
    const send = (event: OutboundEvent, waiter: Waiter): number | EventRejected | "unrouted" => {
      const { eventId } = event
      const subject = template.subjectOf(event)
      if (subject.length > Subject.maxLength) {
        const message = `Its subject has ${subject.length} characters, at most ${Subject.maxLength} are taken`
        return new EventRejected({ eventId, message })
      }
      // Another subscriber may listen there, and then no reply would say that no stream takes it.
      if (!stream.takesAll && !takes(stream, subject)) return "unrouted"
      const headers = Message.headersOf(event, { stream: wanted.name, once })
      const payload = Message.encode(event.payload)
      const size = Message.sizeOf(headers, payload)
      if (size > link.maxPayload) {
        const message = `It has ${size} bytes with its headers, the server takes at most ${link.maxPayload} (max_payload)`
        return new EventRejected({ eventId, message })
      }
      return link.send(subject, payload, headers, waiter)
    }

    const publishKey = (events: ReadonlyArray<readonly [number, OutboundEvent]>) => {
      let position = 0
      let ticket: number | undefined

      const end = () => {
        ticket = undefined
        if (--active === 0) finished()
      }
      const answered = (reply: Msg) => {
        ticket = undefined
        const [index, event] = events[position]!
        const answer = Answer.read(reply, event.eventId, once)
        switch (answer._tag) {
          case "Published":
            outcomes[index] = answer
            position++
            link.afterwards(next)
            return
          case "SinkUnavailable":
            stop(answer)
            break
          case "Unrouted":
            unrouted.push(index)
            break
          case "Oversized":
            outcomes[index] = answer.rejected
            oversized.push(index)
            break
          case "StoredBefore":
            storedBefore.push(index)
            break
          default:
            outcomes[index] = answer
        }
        end()
      }
      const lost = (reason: SinkUnavailable) => {
        stop(reason)
        end()
      }
      const waiter: Waiter = { answered, lost }

      const next = () => {
        for (; position < events.length; position++) {
          const [index, event] = events[position]!
          const sequence = known.get(index)
          if (sequence !== undefined) {
            outcomes[index] = published(sequence, true)
            continue
          }
          if (stopped !== undefined) break
          if (!link.isOpen()) {
            stop(new SinkUnavailable({ sink: "jetstream", reason: "unreachable", message: "The connection was lost" }))
            break
          }
          if (clock.unsafeCurrentTimeMillis() >= batch.deadline) {
            stop(late())
            break
          }
          try {
            const sent = send(event, waiter)
            if (typeof sent === "number") {
              ticket = sent
              return
            }
            if (sent === "unrouted") unrouted.push(index)
            else outcomes[index] = sent
          } catch (cause) {
            if (link.isOpen()) {
              const message = `Cannot publish it: ${String(cause)}`
              outcomes[index] = new EventFailed({ eventId: event.eventId, message, cause })
            } else stop(toUnavailable("Cannot publish")(cause))
          }
          break
        }
        end()
      }

      return {
        start: next,
        /** Stops waiting. Returns whether it was waiting. */
        quit: (): boolean => {
          if (ticket === undefined) return false
          link.forget(ticket)
          ticket = undefined
          return true
        }
      }
    }

    const keys = byKey(batch.events).map(publishKey)
    const quit = () => {
      if (active === 0) return
      // Also stops keys whose next event is about to be sent.
      stop(late())
      if (keys.filter((key) => key.quit()).length === 0) return
      // Data still in the socket must not be sent once another pump has the lane.
      link.abandon(late())
    }

    return Effect.async<void>((resume) => {
      active = keys.length
      finished = () => resume(Effect.void)
      for (const key of keys) key.start()
    }).pipe(
      Effect.timeoutOption(
        Math.max(batch.deadline - clock.unsafeCurrentTimeMillis(), 0) + graceOf(batch.deadline - begunAt)
      ),
      Effect.onExit(() => Effect.sync(quit)),
      Effect.map(() => ({ outcomes, unrouted, storedBefore, oversized, stopped }))
    )
  })
