import { Effect, Fiber, Layer, Logger, LogLevel } from "effect"
import { Outbox, Pump, PumpConfig, type ControlEvent } from "../../src/index.js"
import { MemorySink } from "../../src/testing/index.js"

/** A pump with a sink that keeps what it was given, and both. */
export const layerPump = (config: Parameters<typeof PumpConfig.layer>[0] = {}) =>
  Pump.layer.pipe(
    Layer.provideMerge(MemorySink.layer),
    Layer.provide(Layer.orDie(PumpConfig.layer(config))),
    Layer.provide(Logger.minimumLogLevel(LogLevel.None))
  )

/** The ids of what is in the feed, in its order. */
export const feedIds = Effect.flatMap(MemorySink.MemorySink, ({ feed }) =>
  Effect.map(feed, (entries) => entries.map((entry) => entry.eventId as string))
)

/** Waits for real until a condition holds, and dies with `what` when it does not within 20 seconds. */
export const eventually = <E, R>(what: string, condition: Effect.Effect<boolean, E, R>): Effect.Effect<void, E, R> =>
  Effect.gen(function* () {
    const deadline = Date.now() + 60_000
    while (!(yield* condition)) {
      if (Date.now() > deadline) return yield* Effect.dieMessage(`Waited 60 s in vain: ${what}`)
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 2)))
    }
  })

/** Appends in a transaction that stays open until `commit` is run. Answers when the append is done. */
export const appendAndHold = (event: ControlEvent.Input) =>
  Effect.gen(function* () {
    const outbox = yield* Outbox.Outbox
    const appended = yield* Effect.makeLatch(false)
    const finish = yield* Effect.makeLatch(false)
    const holding = yield* outbox
      .append(event)
      .pipe(Effect.zipRight(appended.open), Effect.zipRight(finish.await), outbox.withTransaction, Effect.forkDaemon)
    yield* appended.await
    return { commit: Effect.zipRight(finish.open, Fiber.join(holding)) }
  })
