import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Cause, Deferred, Effect, Exit, Fiber, Scheduler, TestClock } from "effect"
import { EventId, OrderingKey, Sink } from "../../src/index.js"
import { MemorySink } from "../../src/testing/index.js"

const event = (id: string): Sink.OutboundEvent => {
  const eventId = EventId.make(id)
  return {
    eventId,
    // a1, a2, … are of the key a.
    orderingKey: OrderingKey.make(id[0]!),
    event: { event_id: eventId, type: "test" },
    payload: `{"event_id":"${id}","type":"test"}`,
    traceparent: undefined,
    createdAt: 0,
    attemptCount: 0
  }
}

/** Publishes and answers in short: versions, `again` behind those of duplicates, or tags. */
const publish = (ids: string, deadline = 1000) =>
  Effect.gen(function* () {
    const sink = yield* Sink.Sink
    const [first, ...rest] = ids.split(" ").map(event)
    const outcomes = yield* sink.publish({ events: [first!, ...rest], deadline })
    return outcomes
      .map((outcome) =>
        outcome._tag === "Published" ? `${outcome.version}${outcome.duplicate ? " again" : ""}` : outcome._tag
      )
      .join(", ")
  })

const reasonOf = (ids: string) => Effect.map(Effect.flip(publish(ids)), ({ reason }) => reason)

const feed = Effect.flatMap(MemorySink.MemorySink, ({ feed }) =>
  Effect.map(feed, (entries) => entries.map(({ eventId, version }) => `${version} ${eventId}`).join(", "))
)

const withSink = Effect.provide(MemorySink.layer)

describe("MemorySink", () => {
  it.effect("keeps what was published, and the calls", () =>
    Effect.gen(function* () {
      const memory = yield* MemorySink.MemorySink
      assert.strictEqual(yield* publish("a1 b1 a1"), "1, 2, 1 again")
      assert.strictEqual(yield* publish("b1 a2"), "2 again, 3")
      const { eventId, ...rest } = event("a2")
      assert.deepStrictEqual((yield* memory.feed).at(-1) as object, {
        version: 3,
        eventId,
        orderingKey: rest.orderingKey,
        event: rest.event,
        payload: rest.payload
      })
      assert.strictEqual(yield* feed, "1 a1, 2 b1, 3 a2")
      assert.deepStrictEqual(
        (yield* memory.calls).map(({ events }) => events.length),
        [3, 2]
      )
    }).pipe(withSink)
  )

  it.effect("is empty each time the layer is built", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* publish("a1").pipe(withSink), "1")
      assert.strictEqual(yield* publish("a1").pipe(withSink), "1")
    })
  )

  it.effect("consumes one step for each call", () =>
    Effect.gen(function* () {
      const { script } = yield* MemorySink.MemorySink
      yield* script(...Arr.replicate(MemorySink.unavailable, 2), MemorySink.proceed)
      yield* script(MemorySink.unavailable)
      assert.strictEqual(yield* reasonOf("a1"), "unreachable")
      assert.strictEqual(yield* reasonOf("a1"), "unreachable")
      assert.strictEqual(yield* publish("a1"), "1")
      assert.strictEqual(yield* reasonOf("a2"), "unreachable")
      assert.strictEqual(yield* publish("a2"), "2")
      assert.strictEqual(yield* feed, "1 a1, 2 a2")
    }).pipe(withSink)
  )

  it.effect("is unavailable until told otherwise, and keeps its steps for then", () =>
    Effect.gen(function* () {
      const { calls, script, setAvailable } = yield* MemorySink.MemorySink
      yield* script(MemorySink.stopAfter(1))
      yield* setAvailable(false)
      for (let attempt = 0; attempt < 3; attempt++) assert.strictEqual(yield* reasonOf("a1 a2"), "unreachable")
      assert.strictEqual(yield* feed, "")
      yield* setAvailable(true)
      assert.strictEqual(yield* publish("a1 a2"), "1, NotAttempted")
      assert.strictEqual(yield* publish("a1 a2"), "1 again, 2")
      assert.strictEqual((yield* calls).length, 5)
    }).pipe(withSink)
  )

  it.effect("becomes unavailable after some events of a batch", () =>
    Effect.gen(function* () {
      const { script } = yield* MemorySink.MemorySink
      yield* script(MemorySink.stopAfter(0), MemorySink.stopAfter(2), MemorySink.stopAfter(9))
      assert.strictEqual(yield* reasonOf("a1 b1 a2"), "unreachable")
      assert.strictEqual(yield* publish("a1 b1 a2 b2"), "1, 2, NotAttempted, NotAttempted")
      assert.strictEqual(yield* publish("a2 b2"), "3, 4")
    }).pipe(withSink)
  )

  it.effect("fails and rejects an event as often as scripted, and nothing of its key passes it", () =>
    Effect.gen(function* () {
      const { failEvent, rejectEvent } = yield* MemorySink.MemorySink
      yield* failEvent("a2", { times: 2 })
      yield* rejectEvent("b1")
      const expected = "EventFailed, NotAttempted, EventRejected, NotAttempted"
      assert.strictEqual(yield* publish("a1 a2 a3 b1 b2 c1"), `1, ${expected}, 2`)
      assert.strictEqual(yield* publish("a2 a3 b1 b2"), expected)
      assert.strictEqual(yield* publish("a2 a3 b1 b2"), "3, 4, EventRejected, NotAttempted")
      yield* rejectEvent("b1", { times: 0 })
      assert.strictEqual(yield* publish("b1 b2"), "5, 6")
      assert.strictEqual(yield* feed, "1 a1, 2 c1, 3 a2, 4 a3, 5 b1, 6 b2")
    }).pipe(withSink)
  )

  it.effect("dies on a call, or on an event with those before it in the feed", () =>
    Effect.gen(function* () {
      const { dieOnEvent, script } = yield* MemorySink.MemorySink
      const dies = (ids: string) =>
        Effect.map(Effect.exit(publish(ids)), (exit) => Exit.isFailure(exit) && Cause.isDie(exit.cause))
      yield* script(MemorySink.die)
      assert.isTrue(yield* dies("a1"))
      assert.strictEqual(yield* feed, "")
      yield* dieOnEvent("a2", { times: 1 })
      assert.isTrue(yield* dies("a1 b1 a2 b2"))
      assert.strictEqual(yield* feed, "1 a1, 2 b1")
      assert.strictEqual(yield* publish("a1 b1 a2 b2"), "1 again, 2 again, 3, 4")
    }).pipe(withSink)
  )

  it.effect("hangs until released", () =>
    Effect.gen(function* () {
      const { script } = yield* MemorySink.MemorySink
      const begun = yield* Deferred.make<boolean>()
      const release = yield* Effect.makeLatch()
      yield* script(MemorySink.after(Effect.zipRight(Deferred.succeed(begun, true), release.await)))
      const fiber = yield* Effect.fork(publish("a1"))
      yield* Deferred.await(begun)
      assert.strictEqual(yield* publish("b1"), "1")
      assert.isNull(fiber.unsafePoll())
      yield* release.open
      assert.strictEqual(yield* Fiber.join(fiber), "2")
    }).pipe(withSink)
  )

  it.effect("publishes nothing when it is interrupted while it hangs, or released after the deadline", () =>
    Effect.gen(function* () {
      const { script } = yield* MemorySink.MemorySink
      const begun = yield* Deferred.make<boolean>()
      yield* script(
        MemorySink.after(Effect.zipRight(Deferred.succeed(begun, true), Effect.never)),
        MemorySink.after(Effect.sleep(1000))
      )
      const hanging = yield* Effect.fork(publish("a1"))
      yield* Deferred.await(begun)
      yield* Fiber.interrupt(hanging)
      const late = yield* Effect.fork(reasonOf("a1"))
      yield* TestClock.adjust(1000)
      assert.strictEqual(yield* Fiber.join(late), "timeout")
      assert.strictEqual(yield* feed, "")
    }).pipe(withSink)
  )

  it.effect("loses its answer, and returns duplicates after that", () =>
    Effect.gen(function* () {
      const { script } = yield* MemorySink.MemorySink
      yield* script(MemorySink.loseAnswer)
      assert.strictEqual(yield* reasonOf("a1 a2"), "timeout")
      assert.strictEqual(yield* feed, "1 a1, 2 a2")
      assert.strictEqual(yield* publish("a1 a2 a3"), "1 again, 2 again, 3")
    }).pipe(withSink)
  )

  it.effect("forgets its scripts, and keeps its feed", () =>
    Effect.gen(function* () {
      const memory = yield* MemorySink.MemorySink
      yield* publish("a1")
      yield* memory.script(MemorySink.die)
      yield* memory.rejectEvent("a2")
      yield* memory.setAvailable(false)
      yield* memory.reset
      assert.strictEqual(yield* publish("a1 a2"), "1 again, 2")
    }).pipe(withSink)
  )

  it.effect("keeps only ids and versions if configured", () =>
    Effect.gen(function* () {
      const memory = yield* MemorySink.MemorySink
      yield* publish("a1 a2")
      assert.strictEqual(yield* publish("a2 a3"), "2 again, 3")
      assert.deepStrictEqual(yield* memory.feed, [])
      assert.deepStrictEqual(yield* memory.calls, [])
    }).pipe(Effect.provide(MemorySink.layerWith({ keepFeed: false })))
  )

  it.effect("needs no more steps for many events than for one", () =>
    Effect.gen(function* () {
      const sink = yield* Sink.Sink
      const [first, ...rest] = Array.from({ length: 10_000 }, (_, n) => event(`a${n}`))
      let steps = 0
      const counting: Scheduler.Scheduler = {
        shouldYield: () => {
          steps++
          return false
        },
        scheduleTask: Scheduler.defaultScheduler.scheduleTask.bind(Scheduler.defaultScheduler)
      }
      yield* Effect.withScheduler(sink.publish({ events: [first!, ...rest], deadline: 1000 }), counting)
      assert.isAbove(steps, 0)
      assert.isBelow(steps, 50)
    }).pipe(withSink)
  )
})
