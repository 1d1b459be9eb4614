import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Option, Schedule, Scope, TestClock } from "effect"
import { Applier, ArtifactStore, Handlers, Source } from "../src/fleet/index.js"
import { ControlEvent, Outbox, Pump, PumpConfig, Sink } from "../src/index.js"
import { MemoryAppliedEvents, MemoryOutboxStore, MemorySink, MemorySource } from "../src/testing/index.js"

/** A pump or an applier, and what a test does to it. */
interface Subject {
  readonly drain: Effect.Effect<unknown, unknown>
  readonly pause: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  readonly state: Effect.Effect<string>
  readonly stop: Effect.Effect<void>
  /** Gives it one more event. */
  readonly add: (id: string) => Effect.Effect<void>
  /** The ids of the events that are done. */
  readonly done: Effect.Effect<ReadonlyArray<string>>
  /** Makes the work for the next event wait for `release`. Answers once it waits. */
  readonly hang: (id: string) => Effect.Effect<void>
  readonly release: Effect.Effect<void>
  readonly breakDown: (how: string) => Effect.Effect<void>
  readonly mend: Effect.Effect<void>
}

interface Kind {
  readonly make: (how: "scheduled" | "manual" | "inert") => Effect.Effect<Subject>
  /** What it calls being at work, and the ways in which it fails. */
  readonly working: string
  readonly failing: ReadonlyArray<string>
}

const retry = Schedule.spaced("10 seconds")

const pump: Kind = {
  working: "publishing",
  failing: ["unavailable"],
  make: (how) =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const layer = (how === "manual" ? Pump.layerManual : Pump.layer).pipe(
        Layer.provideMerge(Outbox.layer),
        Layer.provideMerge(how === "inert" ? Layer.merge(MemorySink.layer, Sink.layerNop) : MemorySink.layer),
        Layer.provideMerge(MemoryOutboxStore.layer),
        Layer.provide(Layer.orDie(PumpConfig.layer({ retry, pollPeriod: "1 hour", publishTimeout: "1 hour" })))
      )
      return yield* Effect.gen(function* () {
        const { drain, pause, resume, status } = yield* Pump.Pump
        const sink = yield* MemorySink.MemorySink
        const outbox = yield* Outbox.Outbox
        const goOn = yield* Effect.makeLatch(false)
        const add = (id: string) =>
          Effect.orDie(outbox.withTransaction(outbox.append({ event_id: id, type: "x", tenant_id: id })))
        return {
          drain,
          pause,
          resume,
          state: Effect.map(status, ({ state }) => state),
          stop: Scope.close(scope, Exit.void),
          add: (id) => Effect.asVoid(add(id)),
          done: Effect.map(sink.feed, (feed) => feed.map(({ eventId }) => eventId)),
          hang: (id) =>
            Effect.gen(function* () {
              const begun = yield* Deferred.make<void>()
              yield* sink.script(MemorySink.after(Effect.zipRight(Deferred.succeed(begun, undefined), goOn.await)))
              yield* add(id)
              if (how === "manual") yield* Effect.forkDaemon(Effect.ignore(drain))
              yield* Deferred.await(begun)
            }),
          release: goOn.open,
          breakDown: () => sink.setAvailable(false),
          mend: sink.setAvailable(true)
        } satisfies Subject
      }).pipe(Effect.provide(yield* Layer.buildWithScope(layer, scope)))
    })
}

const applier: Kind = {
  working: "applying",
  failing: ["unavailable", "halted"],
  make: (how) =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const done: Array<string> = []
      const hanging = new Map<string, Deferred.Deferred<void>>()
      const goOn = yield* Effect.makeLatch(false)
      let broken = false
      const handlers = Handlers.make(
        [],
        {},
        {
          otherwise: ({ event: { event_id: id } }) =>
            Effect.gen(function* () {
              if (broken) return yield* Effect.fail("no disk")
              const begun = hanging.get(id)
              if (begun !== undefined) yield* Effect.zipRight(Deferred.succeed(begun, undefined), goOn.await)
              done.push(id)
            })
        }
      )
      const make = how === "manual" ? Applier.layerManual : Applier.layer
      const layer = make(handlers, { retry }).pipe(
        Layer.provideMerge(how === "inert" ? Layer.merge(MemorySource.layer, Source.layerNop) : MemorySource.layer),
        Layer.provide(Layer.merge(MemoryAppliedEvents.layer, ArtifactStore.layerMemory))
      )
      return yield* Effect.gen(function* () {
        const { drain, pause, resume, status } = yield* Applier.Applier
        const source = yield* MemorySource.MemorySource
        const add = (id: string) =>
          Effect.flatMap(Effect.orDie(ControlEvent.makeAll([{ event_id: id, type: "x" }])), source.append)
        return {
          drain,
          pause,
          resume,
          state: Effect.map(status, ({ state }) => state),
          stop: Scope.close(scope, Exit.void),
          add: (id) => Effect.asVoid(add(id)),
          done: Effect.sync(() => done.slice()),
          hang: (id) =>
            Effect.gen(function* () {
              const begun = yield* Deferred.make<void>()
              hanging.set(id, begun)
              yield* add(id)
              if (how === "manual") yield* Effect.forkDaemon(Effect.ignore(drain))
              yield* Deferred.await(begun)
            }),
          release: goOn.open,
          breakDown: (way) =>
            way === "halted"
              ? Effect.sync(() => {
                  broken = true
                })
              : source.setAvailable(false),
          mend: Effect.zipRight(
            Effect.sync(() => {
              broken = false
            }),
            source.setAvailable(true)
          )
        } satisfies Subject
      }).pipe(Effect.provide(yield* Layer.buildWithScope(layer, scope)))
    })
}

/** Lets every fiber run that can, without time passing. */
const settle = Effect.repeatN(Effect.yieldNow(), 300)

const calls = ["drain", "pause", "resume"] as const
type Call = (typeof calls)[number]

/** What a call does in a state: whether it returns before what is in flight is released, and the state it leaves. */
type Expected = readonly [returns: "now" | "later" | "error", state: string]

interface Row {
  readonly state: string
  readonly how?: "manual" | "inert"
  readonly enter: (subject: Subject) => Effect.Effect<unknown>
  readonly expected: Readonly<Record<Call, Expected>>
  /** Whether it does nothing any more. */
  readonly ended?: boolean
}

const rows = ({ failing, working }: Kind): ReadonlyArray<Row> => {
  const hang = (subject: Subject) => subject.hang("hung")
  return [
    {
      state: "idle",
      enter: () => Effect.void,
      expected: { drain: ["now", "idle"], pause: ["now", "paused"], resume: ["now", "idle"] }
    },
    {
      state: working,
      enter: hang,
      expected: { drain: ["later", "idle"], pause: ["later", "paused"], resume: ["now", "idle"] }
    },
    {
      state: "idle",
      how: "manual",
      enter: () => Effect.void,
      expected: { drain: ["now", "idle"], pause: ["now", "paused"], resume: ["now", "idle"] }
    },
    {
      state: working,
      how: "manual",
      enter: hang,
      expected: { drain: ["later", "idle"], pause: ["later", "paused"], resume: ["now", "idle"] }
    },
    ...failing.map((state) => ({
      state,
      enter: (subject: Subject) => Effect.zipRight(subject.breakDown(state), subject.add("broken")),
      expected: {
        drain: ["error", state],
        pause: ["now", "paused"],
        resume: ["now", state]
      } satisfies Row["expected"]
    })),
    {
      state: "paused",
      enter: ({ pause }) => pause,
      expected: { drain: ["now", "paused"], pause: ["now", "paused"], resume: ["now", "idle"] }
    },
    {
      // A pause that waits for what is in flight.
      state: working,
      enter: (subject) => Effect.zipRight(hang(subject), Effect.zipRight(Effect.forkDaemon(subject.pause), settle)),
      expected: { drain: ["now", "paused"], pause: ["later", "paused"], resume: ["now", "idle"] }
    },
    {
      state: "stopping",
      enter: (subject) => Effect.zipRight(hang(subject), Effect.forkDaemon(subject.stop)),
      expected: { drain: ["now", "stopped"], pause: ["later", "stopped"], resume: ["now", "stopped"] },
      ended: true
    },
    {
      // Stopped while it was paused.
      state: "stopped",
      enter: ({ pause, stop }) => Effect.zipRight(pause, stop),
      expected: { drain: ["now", "stopped"], pause: ["now", "stopped"], resume: ["now", "stopped"] },
      ended: true
    },
    {
      state: "inert",
      how: "inert",
      enter: () => Effect.void,
      expected: { drain: ["now", "inert"], pause: ["now", "inert"], resume: ["now", "inert"] },
      ended: true
    }
  ]
}

const isOver = (fiber: Fiber.Fiber<unknown, unknown>) => Effect.map(Fiber.poll(fiber), Option.isSome)

/** Whatever was called: nobody waits for ever, and what came meanwhile is done once nothing is in the way. */
const goesOn = (subject: Subject, row: Row, what: string) =>
  Effect.gen(function* () {
    yield* subject.mend
    yield* subject.resume
    yield* settle
    if (row.how === "manual") yield* subject.drain
    // Less than the back-off: the end of a pause ends that as well.
    yield* TestClock.adjust("10 seconds")
    yield* subject.add("last")
    if (row.how === "manual") yield* subject.drain
    yield* settle
    assert.include(yield* subject.done, "last", what)
    assert.strictEqual(yield* subject.state, "idle", what)
    yield* subject.stop
    assert.strictEqual(yield* subject.state, "stopped", what)
  })

describe.each([
  ["Pump", pump],
  ["Applier", applier]
] as const)("%s", (_, kind) => {
  const table = rows(kind).map((row, n) => ({ ...row, name: `${n + 1}: ${row.state} ${row.how ?? ""}` }))

  it.effect.each(table)("does what its calls say, in state $name", (row) =>
    Effect.forEach(
      calls.flatMap((call) => [false, true].map((guarded) => ({ call, guarded }))),
      ({ call, guarded }) =>
        Effect.gen(function* () {
          const what = `${row.name}, ${call}`
          const subject = yield* kind.make(row.how ?? "scheduled")
          yield* settle
          yield* row.enter(subject)
          yield* settle
          assert.strictEqual(yield* subject.state, row.state, what)
          // A caller that cannot be interrupted must not wait for what nobody ends.
          const calling = yield* (guarded ? Effect.uninterruptible(subject[call]) : subject[call]).pipe(
            Effect.exit,
            Effect.forkDaemon
          )
          yield* settle
          const [returns, state] = row.expected[call]
          assert.strictEqual(yield* isOver(calling), returns !== "later", `${what}: returns`)
          yield* subject.release
          yield* settle
          assert.isTrue(yield* isOver(calling), `${what}: returns at last`)
          assert.strictEqual(Exit.isFailure(yield* Fiber.join(calling)), returns === "error", `${what}: outcome`)
          assert.strictEqual(yield* subject.state, state, `${what}: state afterwards`)
          if (row.ended !== true) yield* goesOn(subject, row, what)
        }),
      { discard: true }
    )
  )

  it.effect.each(table)("bears two calls at a time, in state $name", (row) =>
    Effect.forEach(
      calls.flatMap((one) => calls.map((other) => [one, other] as const)),
      ([one, other]) =>
        Effect.gen(function* () {
          const what = `${row.name}, ${one} and ${other}`
          const subject = yield* kind.make(row.how ?? "scheduled")
          yield* settle
          yield* row.enter(subject)
          yield* settle
          const first = yield* Effect.forkDaemon(Effect.exit(subject[one]))
          const second = yield* Effect.forkDaemon(Effect.exit(subject[other]))
          yield* settle
          yield* subject.release
          yield* settle
          assert.isTrue(yield* isOver(first), `${what}: the first returns`)
          assert.isTrue(yield* isOver(second), `${what}: the second returns`)
          const state = yield* subject.state
          if (row.ended === true) assert.strictEqual(state, row.expected[other][1], what)
          // The later of a pause and the end of one counts.
          else if (other === "pause" || (one === "pause" && other === "drain"))
            assert.strictEqual(state, "paused", what)
          else if (other === "resume" || one === "resume") assert.notStrictEqual(state, "paused", what)
          if (row.ended !== true) yield* goesOn(subject, row, what)
        }),
      { discard: true }
    )
  )

  it.effect("drains before its own passes, every time", () =>
    Effect.gen(function* () {
      const subject = yield* kind.make("scheduled")
      for (let n = 0; n < 20; n++) {
        const draining = yield* Effect.forkDaemon(Effect.all([subject.drain, subject.drain], { concurrency: 2 }))
        yield* subject.add(`a${n}`)
        yield* settle
        assert.isTrue(yield* isOver(draining))
        assert.include(yield* subject.done, `a${n}`)
      }
      assert.strictEqual(new Set(yield* subject.done).size, 20)
      assert.lengthOf(yield* subject.done, 20)
      yield* subject.stop
    })
  )

  it.effect("continues at once if a drain finds that the cause is gone", () =>
    Effect.gen(function* () {
      const subject = yield* kind.make("scheduled")
      yield* subject.breakDown("unavailable")
      yield* subject.add("a")
      yield* settle
      yield* subject.mend
      yield* subject.drain
      yield* settle
      assert.strictEqual(yield* subject.state, "idle")
      yield* subject.add("b")
      yield* settle
      assert.deepStrictEqual(yield* subject.done, ["a", "b"])
      yield* subject.stop
    })
  )

  it.effect("backs off no less if drains fail meanwhile", () =>
    Effect.gen(function* () {
      const subject = yield* kind.make("scheduled")
      yield* subject.breakDown("unavailable")
      yield* subject.add("a")
      yield* settle
      for (let n = 0; n < 5; n++) yield* Effect.flip(subject.drain)
      yield* settle
      yield* subject.mend
      yield* TestClock.adjust("9 seconds")
      assert.deepStrictEqual(yield* subject.done, [])
      yield* TestClock.adjust("1 seconds")
      assert.deepStrictEqual(yield* subject.done, ["a"])
      yield* subject.stop
    })
  )

  it.effect("does nothing twice after an interrupted drain, and continues", () =>
    Effect.gen(function* () {
      for (const how of ["manual", "scheduled"] as const) {
        const subject = yield* kind.make(how)
        yield* subject.pause
        yield* subject.resume
        const draining = yield* Effect.forkDaemon(Effect.zipRight(subject.hang("a"), subject.drain))
        yield* settle
        yield* Fiber.interrupt(draining)
        yield* subject.add("b")
        yield* settle
        assert.deepStrictEqual((yield* subject.done).includes("a"), false)
        yield* subject.release
        yield* settle
        yield* subject.drain
        assert.deepStrictEqual((yield* subject.done).slice().sort(), ["a", "b"])
        assert.strictEqual(yield* subject.state, "idle")
        yield* subject.stop
      }
    })
  )

  it.effect("waits for a pause no longer than its drain timeout when it stops", () =>
    Effect.gen(function* () {
      const subject = yield* kind.make("scheduled")
      yield* subject.hang("a")
      const pausing = yield* Effect.forkDaemon(subject.pause)
      yield* settle
      const stopping = yield* Effect.forkDaemon(subject.stop)
      yield* TestClock.adjust("14 seconds")
      assert.isFalse(yield* isOver(stopping))
      yield* TestClock.adjust("1 seconds")
      yield* settle
      assert.isTrue(yield* isOver(stopping))
      assert.isTrue(yield* isOver(pausing))
      assert.strictEqual(yield* subject.state, "stopped")
      assert.deepStrictEqual(yield* subject.done, [])
    })
  )
})
