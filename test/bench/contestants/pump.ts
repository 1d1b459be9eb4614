// The pump of this project, on one process.
import * as PgClient from "@effect/sql-pg/PgClient"
import { Layer, Logger, LogLevel, ManagedRuntime, Redacted } from "effect"
import { setFlagsFromString } from "node:v8"
import { Pump, PumpConfig } from "../../../src/index.js"
import { Postgres } from "../../../src/postgres/index.js"
import { JetStreamSink } from "../../../src/sinks/index.js"
import { MemorySink } from "../../../src/testing/index.js"
import { contestant } from "../support/contestant.js"

// As the service does.
setFlagsFromString("--heap-growing-percent=100")

contestant(async ({ databaseUrl, natsUrl, options, schema, stream }) => {
  const runtime = ManagedRuntime.make(
    Pump.layerManual.pipe(
      Layer.provide(
        options?.sink === "memory"
          ? MemorySink.layerWith({ keepFeed: false })
          : JetStreamSink.layer({
              servers: [natsUrl],
              stream,
              subject: `${stream}.{type}`,
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
  return {
    work: async () => {
      const { published } = await runtime.runPromise(pump.drain)
      return { published }
    },
    close: () => runtime.dispose()
  }
})
