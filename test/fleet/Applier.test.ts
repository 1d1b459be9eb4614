import { assert, describe, it } from "@effect/vitest"
import {
  Context,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Metric,
  Option,
  Ref,
  Schedule,
  Schema,
  Scope,
  Stream,
  TestClock,
  Tracer
} from "effect"
import { ControlEvent, EventId, EventType } from "../../src/index.js"
import { Applier, ApplierMetrics, AppliedEvents, ArtifactStore, Handlers, Source } from "../../src/fleet/index.js"
import { MemoryAppliedEvents, MemorySource } from "../../src/testing/index.js"

const Changed = EventType.make("plan.changed", { tenant_id: Schema.String, plan: Schema.Literal("free", "gold") })
const Removed = EventType.make("plan.removed", { tenant_id: Schema.String })

/** What the handlers of a test do, and what they have done. */
class Node extends Context.Tag("test/Node")<
  Node,
  {
    readonly applied: Ref.Ref<ReadonlyArray<string>>
    /** Runs before an event is applied. */
    readonly before: Ref.Ref<(id: string) => Effect.Effect<void, unknown>>
  }
>() {}

const layerNode = Layer.effect(
  Node,
  Effect.all({
    applied: Ref.make<ReadonlyArray<string>>([]),
    before: Ref.make<(id: string) => Effect.Effect<void, unknown>>(() => Effect.void)
  })
)

const record = ({ event }: Handlers.Delivered) =>
  Effect.gen(function* () {
    const node = yield* Node
    yield* (yield* Ref.get(node.before))(event.event_id)
    yield* Ref.update(node.applied, (ids) => [...ids, event.event_id])
  })

const handlers = Handlers.make([Changed, Removed], {
  "plan.changed": (_fields, delivered) => record(delivered),
  "plan.removed": (_fields, delivered) => record(delivered)
})

const base = Layer.mergeAll(MemorySource.layer, MemoryAppliedEvents.layer, ArtifactStore.layerMemory, layerNode)

const manual = (options?: Applier.Options) => Layer.provideMerge(Applier.layerManual(handlers, options), base)
const running = (options?: Applier.Options) => Layer.provideMerge(Applier.layer(handlers, options), base)

const append = (...events: ReadonlyArray<string | ControlEvent.Input>) =>
  Effect.gen(function* () {
    const source = yield* MemorySource.MemorySource
    const complete = events.map((event) =>
      typeof event === "string" ? { event_id: event, type: "plan.changed", tenant_id: "t1", plan: "gold" } : event
    )
    yield* source.append(yield* ControlEvent.makeAll(complete))
  })

class Warnings extends Context.Tag("test/Warnings")<Warnings, Array<string>>() {}

/** Keeps the warnings that are logged. */
const layerWarnings = Layer.unwrapEffect(
  Effect.sync(() => {
    const lines: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => {
      if (logLevel._tag === "Warning") lines.push(String(message))
    })
    return Layer.merge(Logger.add(logger), Layer.succeed(Warnings, lines))
  })
)
const warnings = Effect.map(Warnings, (lines) => lines.slice())

const appliedIds = Effect.flatMap(Node, ({ applied }) => Ref.get(applied))
const setBefore = (before: (id: string) => Effect.Effect<void, unknown>) =>
  Effect.flatMap(Node, (node) => Ref.set(node.before, before))
const drain = Effect.flatMap(Applier.Applier, ({ drain }) => drain)
const status = Effect.flatMap(Applier.Applier, ({ status }) => status)
const until = (test: (status: Applier.ApplierStatus) => boolean) =>
  Effect.flatMap(Applier.Applier, ({ changes }) => Stream.runHead(Stream.filter(changes, test)))

describe("Applier", () => {
  it.effect("applies everything in the feed once, in its order, and acknowledges it", () =>
    Effect.gen(function* () {
      yield* append("a", "b", "c")
      assert.deepStrictEqual(yield* drain, { applied: 3, skipped: 0, setAside: 0 })
      assert.deepStrictEqual(yield* drain, { applied: 0, skipped: 0, setAside: 0 })
      yield* append("d")
      yield* drain
      assert.deepStrictEqual(yield* appliedIds, ["a", "b", "c", "d"])
      const source = yield* MemorySource.MemorySource
      assert.deepStrictEqual<ReadonlyArray<number>>(yield* source.acknowledged, [1, 2, 3, 4])
      assert.deepInclude(yield* status, { state: "idle", position: 4, newest: 4, applied: 4 })
    }).pipe(Effect.provide(manual()))
  )

  it.effect("skips an event that comes again under another version", () =>
    Effect.gen(function* () {
      yield* append("a", "b", "a", "c")
      assert.deepStrictEqual(yield* drain, { applied: 3, skipped: 1, setAside: 0 })
      assert.deepStrictEqual(yield* appliedIds, ["a", "b", "c"])
      assert.strictEqual((yield* status).position, 4)
    }).pipe(Effect.provide(manual()))
  )

  it.effect("continues where another applier of the node stopped, and applies nothing again", () =>
    Effect.gen(function* () {
      yield* append("a", "b")
      const applied = yield* AppliedEvents.AppliedEvents
      const { identity } = yield* Effect.flatMap(Source.Source, ({ look }) => look)
      yield* applied.applyOnce({ eventId: EventId.make("a"), version: 1 as never, feed: identity }, Effect.void)
      assert.deepStrictEqual(yield* drain, { applied: 1, skipped: 0, setAside: 0 })
      assert.deepStrictEqual(yield* appliedIds, ["b"])
    }).pipe(Effect.provide(manual()))
  )

  it.effect("halts at an event that fails, and keeps what came before", () =>
    Effect.gen(function* () {
      yield* append("a", "b", "c")
      yield* setBefore((id) => (id === "b" ? Effect.fail("no disk") : Effect.void))
      const error = yield* Effect.flip(drain)
      assert.strictEqual(error._tag, "HandlerFailed")
      assert.match(error.message, /plan\.changed failed: no disk/)
      assert.deepStrictEqual(yield* appliedIds, ["a"])
      yield* setBefore(() => Effect.void)
      yield* drain
      assert.deepStrictEqual(yield* appliedIds, ["a", "b", "c"])
    }).pipe(Effect.provide(manual()))
  )

  it.effect("halts at a defect of a handler", () =>
    Effect.gen(function* () {
      yield* append("a")
      yield* setBefore(() => Effect.die(new Error("bug")))
      const error = yield* Effect.flip(drain)
      assert.strictEqual(error._tag, "HandlerFailed")
      assert.include(error.message, "bug")
      yield* setBefore(() => Effect.void)
      yield* drain
      assert.deepStrictEqual(yield* appliedIds, ["a"])
    }).pipe(Effect.provide(manual()))
  )

  it.effect("retries by its schedule, reports that it is halted, and continues once it can", () =>
    Effect.gen(function* () {
      let tries = 0
      yield* setBefore((id) => (id === "b" && ++tries < 3 ? Effect.fail("not yet") : Effect.void))
      yield* append("a", "b", "c")
      const halted = yield* until(({ state }) => state === "halted")
      assert.deepInclude(Option.getOrThrow(halted), { position: 1, applied: 1, failures: 1 })
      assert.deepInclude(Option.getOrThrow(halted).lastError, { version: 2 })
      assert.strictEqual(tries, 1)
      yield* TestClock.adjust("999 millis")
      assert.strictEqual(tries, 1, "not before its time")
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(tries, 2)
      yield* TestClock.adjust("1 seconds")
      yield* until(({ state }) => state === "idle")
      assert.deepStrictEqual(yield* appliedIds, ["a", "b", "c"])
      assert.strictEqual((yield* status).failures, 2)
    }).pipe(Effect.provide(running({ retry: Schedule.spaced("1 second") })))
  )

  it.effect("restarts its schedule after it applied something", () =>
    Effect.gen(function* () {
      let tries = 0
      // Each event fails three times.
      yield* setBefore(() => (++tries % 4 === 0 ? Effect.void : Effect.fail("not yet")))
      yield* append("a", "b")
      yield* until(({ state }) => state === "halted")
      yield* TestClock.adjust("7 seconds")
      yield* until(({ position }) => position === 1)
      assert.deepStrictEqual(yield* appliedIds, ["a"])
      yield* TestClock.adjust("7 seconds")
      yield* until(({ position }) => position === 2)
      assert.deepStrictEqual(yield* appliedIds, ["a", "b"])
    }).pipe(Effect.provide(running({ retry: Schedule.exponential("1 second") })))
  )

  it.effect("follows the feed, and survives an unreachable one", () =>
    Effect.gen(function* () {
      const source = yield* MemorySource.MemorySource
      yield* append("a")
      yield* until(({ position }) => position === 1)
      yield* append("b")
      yield* until(({ position }) => position === 2)
      yield* source.setAvailable(false)
      yield* until(({ state }) => state === "unavailable")
      yield* source.setAvailable(true)
      yield* append("c")
      yield* TestClock.adjust("1 minute")
      yield* until(({ position }) => position === 3)
      assert.deepStrictEqual(yield* appliedIds, ["a", "b", "c"])
    }).pipe(Effect.provide(running()))
  )

  it.effect("halts at an event of a type that has no handler, and at one that breaks the contract", () =>
    Effect.gen(function* () {
      yield* append({ event_id: "x", type: "unheard.of" })
      assert.strictEqual((yield* Effect.flip(drain))._tag, "UnknownType")
    }).pipe(
      Effect.provide(manual({ cannotApply: "setAside" })),
      Effect.zipRight(
        Effect.gen(function* () {
          yield* append({ event_id: "x", type: "plan.changed", tenant_id: "t1", plan: "silver" })
          const error = yield* Effect.flip(drain)
          assert.deepInclude({ ...error }, { _tag: "InvalidEvent", field: "plan" })
        }).pipe(Effect.provide(manual()))
      )
    )
  )

  it.effect("sets aside what can never be applied if configured, with the reason", () =>
    Effect.gen(function* () {
      yield* setBefore((id) => (id === "b" ? new Handlers.CannotApply({ reason: "its stack is gone" }) : Effect.void))
      yield* append("a", "b", { event_id: "c", type: "plan.changed", tenant_id: "t1", plan: "silver" }, "d")
      assert.deepStrictEqual(yield* drain, { applied: 2, skipped: 0, setAside: 2 })
      const asides = yield* Effect.flatMap(AppliedEvents.AppliedEvents, (applied) => applied.asides())
      assert.sameDeepMembers(
        asides.map(({ eventId, version }) => ({ eventId, version })),
        [
          { eventId: "b", version: 2 },
          { eventId: "c", version: 3 }
        ]
      )
      assert.include(asides.map(({ reason }) => reason).join(), "its stack is gone")
      assert.deepStrictEqual(yield* appliedIds, ["a", "d"])
    }).pipe(Effect.provide(manual({ cannotApply: "setAside" })))
  )

  it.effect("gives handlers the verified artifact, and halts at a missing one", () =>
    Effect.gen(function* () {
      const store = yield* ArtifactStore.ArtifactStore
      const seen: Array<string | undefined> = []
      const reading = Handlers.make(
        [],
        {},
        {
          otherwise: ({ artifact }) =>
            Effect.sync(() => seen.push(artifact === undefined ? undefined : new TextDecoder().decode(artifact)))
        }
      )
      const reference = yield* store.put(new TextEncoder().encode("bytes"))
      yield* append("plain", { event_id: "with", type: "x", ...reference })
      const applier = yield* Layer.build(Applier.layerManual(reading))
      const drain = Context.get(applier, Applier.Applier).drain
      yield* drain
      assert.deepStrictEqual(seen, [undefined, "bytes"])
      yield* store.remove(reference.artifact_ref, Infinity)
      yield* append({ event_id: "again", type: "x", ...reference })
      const error = yield* Effect.flip(drain)
      assert.deepInclude({ ...error }, { _tag: "ArtifactError", reason: "missing" })
      yield* store.put(new TextEncoder().encode("bytes"))
      yield* drain
      assert.deepStrictEqual(seen, [undefined, "bytes", "bytes"])
    }).pipe(Effect.scoped, Effect.provide(base))
  )

  it.effect("does not need the artifact of an event that was applied", () =>
    Effect.gen(function* () {
      const store = yield* ArtifactStore.ArtifactStore
      const reference = yield* store.put(new TextEncoder().encode("bytes"))
      const event = { event_id: "a", type: "plan.removed", tenant_id: "t1", ...reference }
      yield* append(event)
      yield* drain
      yield* store.remove(reference.artifact_ref, Infinity)
      yield* append(event)
      assert.deepStrictEqual(yield* drain, { applied: 0, skipped: 1, setAside: 0 })
    }).pipe(Effect.provide(manual()))
  )

  it.effect("does not continue in a feed that replaced its own or ends before its position", () =>
    Effect.gen(function* () {
      const source = yield* MemorySource.MemorySource
      yield* append("a", "b")
      yield* drain
      yield* source.replace
      yield* append("c", "d", "e")
      const error = yield* Effect.flip(drain)
      assert.deepInclude({ ...error }, { _tag: "SourceError", reason: "replaced" })
      const applied = yield* AppliedEvents.AppliedEvents
      const { identity } = yield* Effect.flatMap(Source.Source, ({ look }) => look)
      yield* applied.seek({ feed: identity, position: 4 })
      assert.deepInclude({ ...(yield* Effect.flip(drain)) }, { _tag: "SourceError", reason: "beyond" })
      yield* applied.start({ feed: identity, position: 1 }, Effect.void)
      yield* drain
      assert.deepStrictEqual(yield* appliedIds, ["a", "b", "d", "e"])
    }).pipe(Effect.provide(manual()))
  )

  it.effect("finishes the event in flight when it is stopped, and starts no other", () =>
    Effect.gen(function* () {
      const begun = yield* Deferred.make<void>()
      const goOn = yield* Deferred.make<void>()
      yield* setBefore(() => Effect.zipRight(Deferred.succeed(begun, undefined), Deferred.await(goOn)))
      yield* append("a", "b")
      const scope = yield* Scope.make()
      yield* Layer.buildWithScope(Applier.layer(handlers), scope)
      yield* Deferred.await(begun)
      const closing = yield* Effect.fork(Scope.close(scope, Exit.void))
      yield* TestClock.adjust("14 seconds")
      assert.isTrue(Option.isNone(yield* Fiber.poll(closing)))
      yield* Deferred.succeed(goOn, undefined)
      yield* Fiber.join(closing)
      assert.deepStrictEqual(yield* appliedIds, ["a"])
      const { position } = yield* Effect.flatMap(AppliedEvents.AppliedEvents, ({ cursor }) => cursor)
      assert.strictEqual(position, 1)
    }).pipe(Effect.provide(base))
  )

  it.effect("waits no longer than its drain timeout for the event in flight, which is applied later", () =>
    Effect.gen(function* () {
      const begun = yield* Deferred.make<void>()
      yield* setBefore(() => Effect.zipRight(Deferred.succeed(begun, undefined), Effect.never))
      yield* append("a")
      const scope = yield* Scope.make()
      yield* Layer.buildWithScope(Applier.layer(handlers, { drainTimeout: "2 seconds" }), scope)
      yield* Deferred.await(begun)
      const closing = yield* Effect.fork(Scope.close(scope, Exit.void))
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(closing)
      assert.deepStrictEqual(yield* appliedIds, [])
      const { position } = yield* Effect.flatMap(AppliedEvents.AppliedEvents, ({ cursor }) => cursor)
      assert.strictEqual(position, 0)
    }).pipe(Effect.provide(base))
  )

  it.effect("pauses and resumes", () =>
    Effect.gen(function* () {
      const applier = yield* Applier.Applier
      yield* append("a")
      yield* until(({ position }) => position === 1)
      yield* applier.pause
      yield* append("b")
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(yield* appliedIds, ["a"])
      assert.strictEqual((yield* status).state, "paused")
      assert.deepStrictEqual(yield* drain, { applied: 0, skipped: 0, setAside: 0 })
      yield* applier.resume
      yield* until(({ position }) => position === 2)
      assert.deepStrictEqual(yield* appliedIds, ["a", "b"])
    }).pipe(Effect.provide(running()))
  )

  it.effect("ends a drain after the event in flight when paused", () =>
    Effect.gen(function* () {
      const begun = yield* Deferred.make<void>()
      const goOn = yield* Deferred.make<void>()
      yield* setBefore(() => Effect.zipRight(Deferred.succeed(begun, undefined), Deferred.await(goOn)))
      yield* append("a", "b", "c")
      const draining = yield* Effect.fork(drain)
      yield* Deferred.await(begun)
      const pausing = yield* Effect.fork(Effect.flatMap(Applier.Applier, ({ pause }) => pause))
      yield* Effect.yieldNow()
      yield* Deferred.succeed(goOn, undefined)
      yield* Fiber.join(pausing)
      assert.deepStrictEqual(yield* Fiber.join(draining), { applied: 1, skipped: 0, setAside: 0 })
      assert.deepStrictEqual(yield* appliedIds, ["a"])
    }).pipe(Effect.provide(manual()))
  )

  it.effect("is inert with the source nop", () =>
    Effect.gen(function* () {
      yield* TestClock.adjust("1 hour")
      assert.strictEqual((yield* status).state, "inert")
      assert.deepStrictEqual(yield* drain, { applied: 0, skipped: 0, setAside: 0 })
    }).pipe(
      Effect.provide(
        Applier.layer(handlers).pipe(
          Layer.provide(Source.layerNop),
          // Whoever touches it dies.
          Layer.provide(
            Layer.succeed(AppliedEvents.AppliedEvents, new Proxy({}, { get: () => Effect.die("used") }) as never)
          ),
          Layer.provide(ArtifactStore.layerNone),
          Layer.provide(layerNode)
        )
      )
    )
  )

  it.effect("counts, and logs once why it cannot continue", () =>
    Effect.gen(function* () {
      const counts = Effect.map(
        Effect.all([ApplierMetrics.applied, ApplierMetrics.skipped, ApplierMetrics.failures].map(Metric.value)),
        (states) => states.map(({ count }) => count)
      )
      const [applied = 0, skipped = 0, failures = 0] = yield* counts
      yield* setBefore((id) => (id === "b" ? Effect.fail("no disk") : Effect.void))
      yield* append("a", "a", "b")
      yield* until(({ state }) => state === "halted")
      yield* TestClock.adjust("10 seconds")
      yield* until(({ failures }) => failures >= 3)
      assert.strictEqual((yield* status).state, "halted")
      const [, , tried = 0] = yield* counts
      assert.deepStrictEqual((yield* counts).slice(0, 2), [applied + 1, skipped + 1])
      assert.isAtLeast(tried - failures, 3)
      assert.strictEqual((yield* Metric.value(ApplierMetrics.position)).value, 2)
      assert.lengthOf(yield* warnings, 1)
      assert.match((yield* warnings)[0]!, /Event 3 cannot be applied.*no disk/)
    }).pipe(Effect.provide(Layer.provideMerge(running({ retry: Schedule.spaced("1 second") }), layerWarnings)))
  )

  it.effect("prunes marks beyond its retention every hour", () =>
    Effect.gen(function* () {
      const events = yield* AppliedEvents.AppliedEvents
      yield* append("a", "b", "c")
      yield* until(({ position }) => position === 3)
      const kept = Effect.forEach(["a", "b", "c"], (id) => events.isApplied(EventId.make(id)))
      yield* TestClock.adjust("50 minutes")
      assert.deepStrictEqual(yield* kept, [true, true, true])
      yield* TestClock.adjust("20 minutes")
      assert.deepStrictEqual(yield* kept, [false, false, true])
    }).pipe(Effect.provide(running({ retention: { keep: 1, olderThan: "30 minutes" } })))
  )

  it.effect("keeps marks for days by default", () =>
    Effect.gen(function* () {
      const events = yield* AppliedEvents.AppliedEvents
      yield* append("a", "b", "c")
      yield* until(({ position }) => position === 3)
      yield* TestClock.adjust("8 days")
      assert.isTrue(yield* events.isApplied(EventId.make("a")))
    }).pipe(Effect.provide(running()))
  )

  it.effect("continues the trace of the append", () =>
    Effect.gen(function* () {
      yield* append("a")
      const traceId = "0af7651916cd43dd8448eb211c80319c"
      const source = yield* Source.Source
      const traced = Source.Source.of({
        ...source,
        events: (after) =>
          Stream.map(source.events(after), (event) => ({ ...event, traceparent: `00-${traceId}-b7ad6b7169203331-01` }))
      })
      const seen: Array<string> = []
      const handlers = Handlers.make(
        [],
        {},
        { otherwise: () => Effect.map(Effect.currentSpan, (span) => seen.push(span.traceId)) }
      )
      const tracer = yield* Effect.tracer
      const applier = yield* Layer.build(
        Layer.provide(Applier.layerManual(handlers), Layer.succeed(Source.Source, traced))
      ).pipe(Effect.withTracer(Tracer.make({ ...tracer })))
      yield* Context.get(applier, Applier.Applier).drain
      assert.deepStrictEqual(seen, [traceId])
    }).pipe(Effect.scoped, Effect.provide(base))
  )

  it("does not compile without a handler for a declared type", () => {
    // @ts-expect-error plan.removed has none
    Handlers.make([Changed, Removed], { "plan.changed": () => Effect.void })
    // @ts-expect-error and its fields are typed
    Handlers.make([Changed], { "plan.changed": ({ seats }) => Effect.succeed(seats) })
  })
})
