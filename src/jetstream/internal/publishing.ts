import * as Effect from "effect/Effect"
import type { Msg } from "@nats-io/transport-node"
import {
  byKey,
  EventFailed,
  notAttempted,
  published,
  SinkUnavailable,
  type Batch,
  type OutboundEvent,
  type Outcome
} from "../../Sink.js"
import type { ControlVersion } from "../../ControlVersion.js"
import * as Answer from "./answer.js"
import { toUnavailable, type Waiter } from "./link.js"
import { compose, type Destination } from "./outgoing.js"

/**
 * How long a batch waits for acknowledgements beyond its deadline, in milliseconds. The pump gives up a publish after
 * four thirds of the time to the deadline: acknowledged events have to be reported by then.
 */
const graceOf = (timeToDeadline: number) => Math.min(Math.max(timeToDeadline / 4, 250), 1_000)

/** How long a batch that was begun at an instant waits from now on, in milliseconds. */
export const patience = ({ deadline }: Batch, begunAt: number, now: number): number =>
  Math.max(deadline - now, 0) + graceOf(deadline - begunAt)

export interface Target extends Destination {
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

export const late = () =>
  new SinkUnavailable({ sink: "jetstream", reason: "timeout", message: "The stream did not acknowledge in time" })

/**
 * Publishes a batch: different keys concurrently, and the events of one key one after another, each after the
 * acknowledgement of the one before. Acknowledgements drive it, without a fiber for each key.
 */
export const run = (batch: Batch, target: Target): Effect.Effect<Result> =>
  Effect.flatMap(Effect.clock, (clock) => {
    const { known, link, once } = target
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
            const outgoing = compose(event, target)
            if (outgoing._tag === "Outgoing") {
              ticket = link.send(outgoing.subject, outgoing.payload, outgoing.headers, waiter)
              return
            }
            if (outgoing._tag === "Unrouted") unrouted.push(index)
            else outcomes[index] = outgoing
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
      Effect.timeoutOption(patience(batch, target.begunAt, clock.unsafeCurrentTimeMillis())),
      Effect.onExit(() => Effect.sync(quit)),
      Effect.map(() => ({ outcomes, unrouted, storedBefore, oversized, stopped }))
    )
  })
