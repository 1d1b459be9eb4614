import { assert, describe, it } from "@effect/vitest"
import { Data, Effect, Exit, FastCheck, Layer, Schedule, Scope, TestClock } from "effect"
import { Outbox, OutboxStore, Pump, PumpConfig, type Sink, type WakeUp } from "../src/index.js"
import { MemoryOutboxStore, MemorySink } from "../src/testing/index.js"

const keys = ["a", "b", "c"]

type Command =
  | { readonly _tag: "Append"; readonly keys: ReadonlyArray<string>; readonly end: "commit" | "rollback" | "die" }
  | { readonly _tag: "Savepoint"; readonly key: string; readonly kept: boolean }
  | { readonly _tag: "Fail"; readonly nth: number; readonly how: "fail" | "reject" | "die"; readonly times: number }
  | { readonly _tag: "Script"; readonly step: "unavailable" | "loseAnswer" | "stopAfter" | "die" | "hang" }
  | { readonly _tag: "Available"; readonly available: boolean }
  | { readonly _tag: "Database"; readonly broken: boolean }
  | { readonly _tag: "Pause" | "Resume" | "Restart" | "Redrive" }
  | { readonly _tag: "Wait"; readonly millis: number }

const key = FastCheck.constantFrom(...keys)

const command: FastCheck.Arbitrary<Command> = FastCheck.oneof(
  {
    weight: 8,
    arbitrary: FastCheck.record({
      _tag: FastCheck.constant("Append" as const),
      keys: FastCheck.array(key, { minLength: 1, maxLength: 6 }),
      end: FastCheck.constantFrom<"commit" | "rollback" | "die">("commit", "commit", "commit", "rollback", "die")
    })
  },
  FastCheck.record({ _tag: FastCheck.constant("Savepoint" as const), key, kept: FastCheck.boolean() }),
  {
    weight: 2,
    arbitrary: FastCheck.record({
      _tag: FastCheck.constant("Fail" as const),
      nth: FastCheck.nat(12),
      how: FastCheck.constantFrom<"fail" | "reject" | "die">("fail", "reject", "die"),
      times: FastCheck.integer({ min: 1, max: 3 })
    })
  },
  {
    weight: 2,
    arbitrary: FastCheck.record({
      _tag: FastCheck.constant("Script" as const),
      step: FastCheck.constantFrom<"unavailable" | "loseAnswer" | "stopAfter" | "die" | "hang">(
        "unavailable",
        "loseAnswer",
        "stopAfter",
        "die",
        "hang"
      )
    })
  },
  FastCheck.record({ _tag: FastCheck.constant("Available" as const), available: FastCheck.boolean() }),
  FastCheck.record({ _tag: FastCheck.constant("Database" as const), broken: FastCheck.boolean() }),
  FastCheck.record({
    _tag: FastCheck.constantFrom<"Pause" | "Resume" | "Restart" | "Redrive">("Pause", "Resume", "Restart", "Redrive")
  }),
  {
    weight: 4,
    arbitrary: FastCheck.record({
      _tag: FastCheck.constant("Wait" as const),
      millis: FastCheck.constantFrom(0, 0, 1, 100, 2_000)
    })
  }
)

const config = PumpConfig.layer({
  batchSize: 3,
  pollPeriod: "1 second",
  publishTimeout: "2 seconds",
  drainTimeout: "1 second",
  retry: Schedule.union(Schedule.exponential("50 millis"), Schedule.spaced("1 second")),
  eventRetry: Schedule.union(Schedule.exponential("100 millis"), Schedule.spaced("2 seconds"))
}).pipe(Layer.orDie)

class RolledBack extends Data.TaggedError("RolledBack") {}

/** Runs commands, heals everything, and compares the feed with what was committed. */
const run = (commands: ReadonlyArray<Command>, afterParked: OutboxStore.AfterParked) =>
  Effect.gen(function* () {
    const outbox = yield* Outbox.Outbox
    const sink = yield* MemorySink.MemorySink
    const store = yield* MemoryOutboxStore.MemoryOutboxStore
    const context = yield* Effect.context<OutboxStore.OutboxStore | WakeUp.WakeUp | Sink.Sink>()
    const pumpConfig = { ...(yield* PumpConfig.PumpConfig), afterParked }
    const committed: Array<{ readonly id: string; readonly key: string }> = []
    const rejected = new Set<string>()
    let appended = 0

    const start = Effect.gen(function* () {
      const scope = yield* Scope.make()
      const pump = yield* Pump.make.pipe(
        Effect.provideService(PumpConfig.PumpConfig, pumpConfig),
        Effect.provide(context),
        Scope.extend(scope)
      )
      return { pump, scope }
    })
    const stop = (scope: Scope.CloseableScope) =>
      Effect.gen(function* () {
        const closing = yield* Effect.fork(Scope.close(scope, Exit.void))
        yield* TestClock.adjust("3 seconds")
        yield* closing.await
      })
    let running = yield* start

    const next = (key: string) => ({ id: `e${appended++}`, key })
    const toEvent = ({ id, key }: { id: string; key: string }) => ({ event_id: id, type: "x", tenant_id: key })

    const execute = (command: Command): Effect.Effect<unknown> => {
      switch (command._tag) {
        case "Append": {
          const events = command.keys.map(next)
          const end =
            command.end === "commit" ? Effect.void : command.end === "die" ? Effect.die("boom") : new RolledBack()
          return outbox.withTransaction(Effect.zipRight(outbox.appendAll(events.map(toEvent)), end)).pipe(
            Effect.exit,
            Effect.map((exit) => Exit.isSuccess(exit) && committed.push(...events))
          )
        }
        case "Savepoint": {
          const [before, inside, after] = [next(command.key), next(command.key), next(command.key)]
          return outbox
            .withTransaction(
              Effect.gen(function* () {
                yield* outbox.append(toEvent(before))
                yield* outbox
                  .withTransaction(
                    Effect.zipRight(outbox.append(toEvent(inside)), command.kept ? Effect.void : new RolledBack())
                  )
                  .pipe(Effect.ignore)
                yield* outbox.append(toEvent(after))
              })
            )
            .pipe(
              Effect.exit,
              Effect.map(
                (exit) => Exit.isSuccess(exit) && committed.push(before, ...(command.kept ? [inside] : []), after)
              )
            )
        }
        case "Fail": {
          const id = `e${command.nth}`
          if (command.how === "reject") rejected.add(id)
          return { fail: sink.failEvent, reject: sink.rejectEvent, die: sink.dieOnEvent }[command.how](id, {
            times: command.times
          })
        }
        case "Script":
          return command.step === "hang"
            ? sink.script(MemorySink.after(Effect.never))
            : sink.script(command.step === "stopAfter" ? MemorySink.stopAfter(1) : MemorySink[command.step])
        case "Available":
          return sink.setAvailable(command.available)
        case "Database":
          return store.breakWith(
            command.broken ? new OutboxStore.OutboxError({ message: "gone", retryable: true }) : undefined
          )
        case "Pause":
          // A pause waits for what is in flight, which may hang.
          return Effect.fork(running.pump.pause)
        case "Resume":
          return running.pump.resume
        case "Restart":
          return stop(running.scope).pipe(
            Effect.zipRight(start),
            Effect.tap((started) => Effect.sync(() => (running = started)))
          )
        case "Redrive":
          return outbox.parked().pipe(
            Effect.flatMap((parked) => outbox.redrive(parked.map((event) => event.eventId))),
            Effect.ignore
          )
        case "Wait":
          return TestClock.adjust(command.millis)
      }
    }

    yield* Effect.forEach(commands, execute, { discard: true })

    yield* store.breakWith(undefined)
    yield* sink.reset
    yield* TestClock.adjust("10 seconds")
    yield* running.pump.resume
    yield* TestClock.adjust("10 seconds")
    for (let round = 0; round < 50; round++) {
      yield* execute({ _tag: "Redrive" })
      yield* TestClock.adjust("2 seconds")
      const backlog = yield* outbox.parked()
      const rows = yield* store.rows
      if (backlog.length === 0 && rows.every((row) => row.version !== undefined)) break
    }
    yield* stop(running.scope)

    const feed = yield* sink.feed
    const rows = yield* store.rows
    // Nothing lost, nothing invented, nothing twice.
    assert.deepStrictEqual(feed.map((entry) => entry.eventId as string).sort(), committed.map(({ id }) => id).sort())
    // The version that the sink assigned is in the row.
    assert.deepStrictEqual(
      new Map(rows.map((row) => [row.eventId, row.version])),
      new Map(feed.map((entry) => [entry.eventId as string, entry.version as number]))
    )
    // Order per key is commit order; events pass a parked one only where that is configured.
    for (const key of keys) {
      const passed = (id: string) => afterParked === "pass" && rejected.has(id)
      assert.deepStrictEqual(
        feed
          .filter((entry) => entry.orderingKey === key)
          .flatMap(({ eventId }) => (passed(eventId) ? [] : [eventId as string])),
        committed.filter((event) => event.key === key).flatMap(({ id }) => (passed(id) ? [] : [id]))
      )
    }
  }).pipe(
    Effect.provide(
      Outbox.layer.pipe(
        Layer.provideMerge(MemorySink.layer),
        Layer.provideMerge(MemoryOutboxStore.layer),
        Layer.provideMerge(config)
      )
    )
  )

describe("The outbox against a model", () => {
  it.effect.prop(
    "publishes exactly what was committed, in order per key, whatever happened meanwhile",
    [FastCheck.array(command, { maxLength: 60 })],
    ([commands]) => run(commands, "pass"),
    { fastCheck: { numRuns: 120 }, timeout: 300_000 }
  )

  it.effect.prop(
    "keeps the order also behind parked events where they are waited for",
    [FastCheck.array(command, { maxLength: 60 })],
    ([commands]) => run(commands, "wait"),
    { fastCheck: { numRuns: 60 }, timeout: 300_000 }
  )
})
