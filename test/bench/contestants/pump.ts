// The pump of this project, on one process.
import * as PgClient from "@effect/sql-pg/PgClient"
import { Effect, Layer, Logger, LogLevel, ManagedRuntime, Redacted } from "effect"
import { setFlagsFromString } from "node:v8"
import { Pump, PumpConfig, Retention } from "../../../src/index.js"
import { Postgres, PostgresOutboxAdmin } from "../../../src/postgres/index.js"
import { JetStreamSink } from "../../../src/jetstream/index.js"
import { MemorySink } from "../../../src/testing/index.js"
import { contestant } from "../support/contestant.js"

// As the service does.
setFlagsFromString("--heap-growing-percent=100")

contestant(async ({ databaseUrl, natsUrl, options, schema, stream }) => {
  const runtime = ManagedRuntime.make(
    Layer.merge(
      Pump.layerManual,
      Retention.layerManual({ keep: Retention.defaultKeep }).pipe(Layer.provide(PostgresOutboxAdmin.layer({ schema })))
    ).pipe(
      Layer.provide(
        options?.sink === "memory"
          ? MemorySink.layerWith({ keepFeed: false })
          : JetStreamSink.layer({
              servers: [natsUrl],
              stream,
              subject: `${stream}.{type}`,
              publish: options?.publish === "batch" || options?.publish === "auto" ? options.publish : "message",
              deduplication: options?.deduplication === "subject" ? "subject" : "lookup"
            })
      ),
      Layer.provide(Postgres.layer({ schema })),
      Layer.provide(PgClient.layer({ url: Redacted.make(databaseUrl) })),
      Layer.provide(PumpConfig.layerDefaults),
      Layer.provide(Logger.minimumLogLevel(LogLevel.Warning))
    )
  )
  const pump = await runtime.runPromise(Pump.Pump)
  const retention = await runtime.runPromise(Retention.Retention)
  const pruning = options?.prune === 1 ? retention.runNow({ actor: "benchmark", reason: "benchmark" }) : Effect.void
  return {
    work: () =>
      runtime.runPromise(
        Effect.forkScoped(pruning).pipe(
          Effect.zipRight(pump.drain),
          Effect.map(({ published }) => ({ published })),
          Effect.scoped
        )
      ),
    close: () => runtime.dispose()
  }
})
