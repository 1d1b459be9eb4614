import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, TestClock } from "effect"
import { Outbox, Pump, PumpConfig } from "../../src/index.js"
import { Fleet, NodeRegistry, NodeReports, Source } from "../../src/fleet/index.js"
import {
  MemoryNodeRegistry,
  MemoryOutboxAdmin,
  MemoryOutboxStore,
  MemorySink,
  MemorySource
} from "../../src/testing/index.js"
import { joined, registration, report } from "../support/nodeRegistrySuite.js"

const outbox = Pump.layerManual.pipe(
  Layer.provideMerge(Layer.mergeAll(Outbox.layer, MemoryOutboxAdmin.layer, MemorySink.layer)),
  Layer.provideMerge(Layer.merge(MemoryOutboxStore.layer, PumpConfig.layerDefaults))
)

const TestFleet = Fleet.layer().pipe(
  Layer.provideMerge(Layer.mergeAll(MemoryNodeRegistry.layer, outbox, MemorySource.layer))
)

/** What the memory source calls its feed. */
const says = { feed: "memory-1" }

const awaiting = (...args: Parameters<Fleet.Fleet["Type"]["awaitApplied"]>) =>
  Effect.flatMap(Fleet.Fleet, (fleet) => Effect.fork(Effect.either(fleet.awaitApplied(...args))))

const answer = <A, E>(fiber: Fiber.Fiber<A, E>) =>
  Effect.map(fiber.poll, (exit) => (exit._tag === "None" ? undefined : exit.value))

const failure = (...args: Parameters<Fleet.Fleet["Type"]["awaitApplied"]>) =>
  Effect.gen(function* () {
    const fiber = yield* awaiting(...args)
    yield* TestClock.adjust("1 minute")
    const result = yield* Fiber.join(fiber)
    assert.strictEqual(result._tag, "Left")
    return result._tag === "Left" ? result.left : assert.fail()
  })

describe("Fleet.awaitApplied", () => {
  it.effect("returns when the last chosen node has applied it, and not before", () =>
    Effect.gen(function* () {
      const registry = yield* NodeRegistry.NodeRegistry
      yield* joined("n1", 7, { says })
      const ticket = yield* joined("n2", 6, { says })
      const fiber = yield* awaiting(7)
      yield* TestClock.adjust("29 seconds")
      assert.isUndefined(yield* answer(fiber))
      yield* registry.report("n2", ticket, report(2, 7, says))
      yield* TestClock.adjust("250 millis")
      const result = yield* Fiber.join(fiber)
      assert.deepInclude(result._tag === "Right" ? result.right.progress : undefined, {
        version: 7,
        chosen: 2,
        applied: 2,
        laggards: []
      })
    }).pipe(Effect.provide(TestFleet))
  )

  it.effect("fails after the timeout with who has not, and why", () =>
    Effect.gen(function* () {
      yield* joined("n1", 7, { says })
      const trouble = { message: 'relation "tenants" does not exist', version: 7 }
      yield* joined("n2", 6, { says: { ...says, state: "halted", trouble } })
      yield* joined("n3", 5, { says, who: { silentAfterMillis: 1_000 } })
      const error = yield* failure(7, { timeout: "10 seconds" })
      assert.deepInclude(error, { _tag: "NotApplied", chosen: 3, applied: 1, needed: 3 })
      assert.strictEqual(
        error.message,
        '1 of 3 nodes have applied control version 7 within 10s, and 3 have to: n2 is halted at 6: relation "tenants" does not exist; n3 not heard for 10s, then at 5'
      )
    }).pipe(Effect.provide(TestFleet))
  )

  it.effect("waits for the nodes, the labels or the part of them that it is told", () =>
    Effect.gen(function* () {
      const fleet = yield* Fleet.Fleet
      yield* joined("n1", 7, { says, who: { labels: { ring: "canary" } } })
      for (const node of ["n2", "n3", "n4"]) yield* joined(node, 6, { says })
      const { needed } = yield* fleet.awaitApplied(7, { labels: { ring: "canary" } })
      assert.strictEqual(needed, 1)
      yield* fleet.awaitApplied(7, { nodes: ["n1"] })
      yield* fleet.awaitApplied(7, { fraction: 0.25 })
      assert.deepInclude(yield* failure(7, { fraction: 0.26 }), { applied: 1, needed: 2 })
      assert.deepInclude(yield* failure(7, { nodes: ["n1", "gone"] }), { applied: 1, chosen: 2 })
      for (const fraction of [0, 1.1, Number.NaN]) {
        assert.strictEqual((yield* Effect.flip(fleet.awaitApplied(7, { fraction })))._tag, "InvalidTarget")
      }
      assert.strictEqual((yield* Effect.flip(fleet.awaitApplied(0)))._tag, "InvalidTarget")
    }).pipe(Effect.provide(TestFleet))
  )

  it.effect("takes no node for an answer where none is chosen", () =>
    Effect.gen(function* () {
      const error = yield* failure(1)
      assert.strictEqual(
        error.message,
        "No node was chosen, so none has applied control version 1: none is registered that matches"
      )
    }).pipe(Effect.provide(TestFleet))
  )

  it.effect("counts no position in another feed, whatever its number", () =>
    Effect.gen(function* () {
      const source = yield* MemorySource.MemorySource
      yield* joined("n1", 700, { says })
      const fleet = yield* Fleet.Fleet
      yield* fleet.awaitApplied(1)
      // The stream was made anew: its versions begin again, and the node is still at its place in the old one.
      yield* source.replace
      yield* TestClock.adjust("3 seconds")
      const error = yield* failure(1)
      assert.match(error.message, /^0 of 1 nodes .* n1 reads another feed: memory-1$/)
      assert.deepInclude(yield* fleet.awaitApplied(700, { feed: "memory-1" }), { done: true })
    }).pipe(Effect.provide(TestFleet))
  )

  it.effect("does not guess which feed is meant while the source does not answer", () =>
    Effect.gen(function* () {
      const source = yield* MemorySource.MemorySource
      yield* joined("n1", 7, { says })
      yield* source.setAvailable(false)
      const fiber = yield* awaiting(7)
      yield* TestClock.adjust("20 seconds")
      assert.isUndefined(yield* answer(fiber))
      yield* source.setAvailable(true)
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual((yield* Fiber.join(fiber))._tag, "Right")
      yield* source.setAvailable(false)
      yield* TestClock.adjust("3 seconds")
      assert.match((yield* failure(7)).message, /could not be asked within 30s: .*unavailable/)
    }).pipe(Effect.provide(TestFleet))
  )

  it.effect("asks for the feed where nodes read several and no source says which", () =>
    Effect.gen(function* () {
      const fleet = yield* Fleet.Fleet
      yield* joined("n1", 7)
      yield* fleet.awaitApplied(7)
      yield* joined("n2", 7, { says: { feed: "g" } })
      assert.match((yield* failure(7)).message, /read several feeds.*name the feed/)
      assert.deepInclude(yield* fleet.awaitApplied(7, { feed: "g", nodes: ["n2"] }), { done: true })
    }).pipe(
      Effect.provide(
        Fleet.layer().pipe(Layer.provideMerge(Layer.mergeAll(MemoryNodeRegistry.layer, outbox, Source.layerNop)))
      )
    )
  )

  it.effect("does not count what was set aside", () =>
    Effect.gen(function* () {
      const asides = { versions: [7], completeFrom: 0 }
      yield* joined("n1", 9, { says: { ...says, asides } })
      assert.deepInclude(yield* failure(7), { others: [{ why: "setAside", nodes: 1 }] })
      yield* Effect.flatMap(Fleet.Fleet, (fleet) => fleet.awaitApplied(8))
    }).pipe(Effect.provide(TestFleet))
  )

  it.effect("follows an event of the outbox from its append to the nodes", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      const pump = yield* Pump.Pump
      const fleet = yield* Fleet.Fleet
      const registry = yield* NodeRegistry.NodeRegistry
      const ticket = yield* joined("n1", 0, { says })
      const id = yield* outbox.withTransaction(outbox.append({ type: "tenant.created", tenant_id: "t1" }))
      const fiber = yield* awaiting(id)
      yield* TestClock.adjust("2 seconds")
      const before = yield* fleet.rollout(id)
      assert.notProperty(before, "progress")
      assert.deepInclude(before, { done: false, event: { eventId: id, state: "pending" } })
      yield* pump.drain
      yield* TestClock.adjust("1 second")
      assert.isUndefined(yield* answer(fiber))
      assert.deepInclude((yield* fleet.rollout(id)).progress, { version: 1, applied: 0, chosen: 1 })
      yield* registry.report("n1", ticket, report(2, 1, says))
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(fiber))._tag, "Right")
    }).pipe(Effect.provide(TestFleet))
  )

  it.effect("says why an event is not published, and at once that there is none", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      const sink = yield* MemorySink.MemorySink
      const pump = yield* Pump.Pump
      const fleet = yield* Fleet.Fleet
      yield* joined("n1", 9, { says })
      const id = yield* outbox.withTransaction(outbox.append({ type: "tenant.created", tenant_id: "t1" }))
      yield* sink.rejectEvent(id)
      yield* pump.drain
      assert.match((yield* failure(id)).message, /^the event .* was not published within 30s: it is parked: /)
      const none = yield* Effect.flip(fleet.awaitApplied("no-such-event"))
      assert.strictEqual(none._tag, "EventNotFound")
    }).pipe(Effect.provide(TestFleet))
  )

  it.effect("outlives an outage of the registry", () =>
    Effect.gen(function* () {
      let broken = true
      const registry = yield* MemoryNodeRegistry.make
      const flaky: NodeRegistry.NodeRegistry["Type"] = {
        ...registry,
        progress: (query) =>
          Effect.suspend(() =>
            broken ? new NodeReports.ReportsUnavailable({ message: "gone" }) : registry.progress(query)
          )
      }
      const layer = Fleet.layer().pipe(
        Layer.provide(Layer.succeed(NodeRegistry.NodeRegistry, flaky)),
        Layer.provide([outbox, Source.layerNop])
      )
      yield* Effect.gen(function* () {
        const ticket = yield* registry.register(registration("n1"))
        yield* registry.report("n1", ticket, report(1, 7))
        assert.match((yield* failure(7)).message, /could not be asked within 30s: gone/)
        const fiber = yield* awaiting(7)
        yield* TestClock.adjust("10 seconds")
        broken = false
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* Fiber.join(fiber))._tag, "Right")
      }).pipe(Effect.provide(layer))
    })
  )

  it.effect("fails in time although the registry hangs", () =>
    Effect.gen(function* () {
      const registry = yield* MemoryNodeRegistry.make
      const hanging = { ...registry, progress: () => Effect.uninterruptible(Effect.never) }
      const layer = Fleet.layer().pipe(
        Layer.provide(Layer.succeed(NodeRegistry.NodeRegistry, hanging)),
        Layer.provide([outbox, Source.layerNop])
      )
      assert.match((yield* Effect.provide(failure(7), layer)).message, /could not be asked within 30s/)
    })
  )
})

describe("Fleet.rollout", () => {
  it.effect("pages through those who have not applied it, and forgets on request", () =>
    Effect.gen(function* () {
      const fleet = yield* Fleet.Fleet
      for (let index = 10; index < 60; index++) yield* joined(`n${index}`, 6, { says })
      const names = (
        page: Fleet.Fleet["Type"]["rollout"] extends (...a: never) => Effect.Effect<infer A, unknown> ? A : never
      ) => page.progress!.laggards.map(({ node }) => node)
      const first = names(yield* fleet.rollout(7))
      assert.lengthOf(first, 20)
      const second = names(yield* fleet.rollout(7, { after: first[19], limit: 30 }))
      assert.deepStrictEqual([second.length, second[0], second[29]], [30, "n30", "n59"])
      assert.isTrue(yield* fleet.forget("n10"))
      assert.strictEqual((yield* fleet.summary()).nodes, 49)
    }).pipe(Effect.provide(TestFleet))
  )
})
