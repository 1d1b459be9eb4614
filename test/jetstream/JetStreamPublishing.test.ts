import { assert, describe, it } from "@effect/vitest"
import { createInbox, type Msg, type MsgHdrs } from "@nats-io/transport-node"
import type { Array as Arr } from "effect"
import { Clock, Effect, Either, Fiber } from "effect"
import { EventId, OrderingKey, type Sink } from "../../src/index.js"
import type { Link, Waiter } from "../../src/jetstream/internal/link.js"
import * as Publishing from "../../src/jetstream/internal/publishing.js"
import type { Stream } from "../../src/jetstream/internal/stream.js"
import * as Subject from "../../src/jetstream/internal/subject.js"

/** A link that does nothing by itself. */
const makeLink = (onSend: (subject: string) => void = () => {}) => {
  const sent: Array<Waiter> = []
  const due: Array<() => void> = []
  let abandoned = 0
  let isOpen = true
  const link = {
    maxPayload: 1_000,
    isOpen: () => isOpen,
    send: (subject: string, _: Uint8Array, _headers: MsgHdrs, waiter: Waiter) => {
      onSend(subject)
      return sent.push(waiter)
    },
    forget: () => {},
    afterwards: (next: () => void) => void due.push(next),
    abandon: () => {
      abandoned++
      isOpen = false
    }
  } satisfies Partial<Link>
  const reply = { headers: undefined, json: () => ({ stream: "s", seq: sent.length }), subject: createInbox() }
  return {
    link: link as unknown as Link,
    sent,
    someSent: Effect.repeat(Effect.yieldNow(), { until: () => sent.length > 0 }),
    abandoned: () => abandoned,
    acknowledge: (index: number) => sent[index]!.answered(reply as unknown as Msg),
    /** What the event loop does next. */
    turn: () => {
      for (const next of due.splice(0)) next()
    }
  }
}

const event = (id: string, key: string): Sink.OutboundEvent => ({
  eventId: EventId.make(id),
  orderingKey: OrderingKey.make(key),
  event: { event_id: EventId.make(id), type: id },
  payload: "{}",
  traceparent: undefined,
  createdAt: 0,
  attemptCount: 0
})

const run = (link: Link, events: Arr.NonEmptyReadonlyArray<Sink.OutboundEvent>) =>
  Effect.flatMap(Clock.currentTimeMillis, (now) =>
    Publishing.run(
      { events, deadline: now + 7_500 },
      {
        link,
        stream: { takesAll: true } as Stream,
        wanted: { name: "s" },
        template: Either.getOrThrow(Subject.parse("c.{type}")),
        once: false,
        known: new Map(),
        begunAt: now
      }
    )
  )

describe("a batch on its way to JetStream", () => {
  it.effect("sends one event of a key after another", () =>
    Effect.gen(function* () {
      const { acknowledge, link, sent, someSent, turn } = makeLink()
      const fiber = yield* Effect.fork(run(link, [event("a1", "a"), event("a2", "a"), event("b1", "b")]))
      yield* someSent
      assert.strictEqual(sent.length, 2)
      acknowledge(0)
      acknowledge(1)
      turn()
      assert.strictEqual(sent.length, 3)
      acknowledge(2)
      turn()
      const { outcomes, stopped } = yield* Fiber.join(fiber)
      assert.isTrue(outcomes.every(({ _tag }) => _tag === "Published"))
      assert.isUndefined(stopped)
    })
  )

  it.effect("sends nothing after an interruption, also where nothing waits for an answer", () =>
    Effect.gen(function* () {
      const { acknowledge, link, sent, someSent, turn } = makeLink()
      const fiber = yield* Effect.fork(run(link, [event("a1", "a"), event("a2", "a")]))
      yield* someSent
      acknowledge(0)
      yield* Fiber.interrupt(fiber)
      turn()
      assert.strictEqual(sent.length, 1)
    })
  )

  it.effect("gives up the connection with what is in flight when it is interrupted", () =>
    Effect.gen(function* () {
      const { abandoned, link, someSent } = makeLink()
      const fiber = yield* Effect.fork(run(link, [event("a1", "a")]))
      yield* someSent
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(abandoned(), 1)
    })
  )

  it.effect("charges what cannot be sent to its event", () =>
    Effect.gen(function* () {
      const { acknowledge, link, someSent, turn } = makeLink((subject) => {
        if (subject === "c.a1") throw new Error("never")
      })
      const fiber = yield* Effect.fork(run(link, [event("a1", "a"), event("a2", "a"), event("b1", "b")]))
      yield* someSent
      acknowledge(0)
      turn()
      const { outcomes, stopped } = yield* Fiber.join(fiber)
      assert.deepStrictEqual(
        outcomes.map(({ _tag }) => _tag),
        ["EventFailed", "NotAttempted", "Published"]
      )
      assert.isUndefined(stopped)
    })
  )
})
