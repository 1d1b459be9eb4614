// The pump of this project as it runs in a service: woken by commits, for as long as it is told.
import * as PgClient from "@effect/sql-pg/PgClient"
import { Effect, Layer, Logger, LogLevel, ManagedRuntime, Redacted } from "effect"
import { setFlagsFromString } from "node:v8"
import { OutboxStore, Pump, PumpConfig, Sink, type ControlVersion } from "../../../src/index.js"
import { Postgres } from "../../../src/postgres/index.js"
import { JetStreamSink } from "../../../src/jetstream/index.js"
import { contestant, sharedClock, type Task } from "../support/contestant.js"

// As the service does.
setFlagsFromString("--heap-growing-percent=100")

/** When the outcome of each event was known, by its id. */
const acknowledged: Record<string, number> = {}

const jetStream = ({ natsUrl, options, stream }: Task) => {
  const sink = JetStreamSink.make({ servers: [natsUrl], stream, subject: `${stream}.{type}` })
  return Layer.scoped(
    Sink.Sink,
    options?.observe !== 1
      ? sink
      : Effect.map(sink, (sink) => ({
          ...sink,
          publish: (batch: Sink.Batch) =>
            Effect.tap(sink.publish(batch), () =>
              Effect.sync(() => {
                const now = sharedClock()
                for (const { eventId } of batch.events) acknowledged[eventId] = now
              })
            )
        }))
  )
}

/** Takes 5 ms an event, one event of a batch after another. */
const slow = Layer.sync(Sink.Sink, () => {
  let version = 0
  return Sink.fromAppend({
    name: "slow",
    concurrency: 1,
    append: () => Effect.as(Effect.sleep("5 millis"), Sink.published(++version as ControlVersion.ControlVersion))
  })
})

contestant(async (task) => {
  const runtime = ManagedRuntime.make(
    Pump.layer.pipe(
      Layer.provide(task.options?.sink === "slow" ? slow : jetStream(task)),
      Layer.provideMerge(Postgres.layer({ schema: task.schema })),
      Layer.provide(PgClient.layer({ url: Redacted.make(task.databaseUrl) })),
      Layer.provide(PumpConfig.layerDefaults),
      Layer.provide(Logger.minimumLogLevel(LogLevel.Warning))
    )
  )
  const pump = await runtime.runPromise(Pump.Pump)
  if (task.options?.paused === 1) await runtime.runPromise(pump.pause)

  const untilEmpty = Effect.flatMap(OutboxStore.OutboxStore, (store) =>
    store
      .backlog({ limit: 1 })
      .pipe(Effect.delay("20 millis"), Effect.repeat({ until: ({ pending }) => pending.value === 0 }))
  )

  return {
    /** For so long, or where that is 0, until everything is published. */
    work: async (millis) => {
      await runtime.runPromise(pump.resume)
      await runtime.runPromise(millis > 0 ? Effect.sleep(millis) : untilEmpty)
      return acknowledged
    },
    close: () => runtime.dispose()
  }
})
