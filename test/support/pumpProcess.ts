// A pump in a process of its own, until it is stopped: `node pumpProcess.mjs DATABASE_URL NAME`.
import { NodeRuntime } from "@effect/platform-node"
import * as PgClient from "@effect/sql-pg/PgClient"
import { Console, Effect, Layer, Redacted } from "effect"
import { Pump, PumpConfig } from "../../src/index.js"
import { Postgres } from "../../src/postgres/index.js"
import * as TableSink from "./tableSink.js"

const [, , url, name] = process.argv

Pump.layer.pipe(
  Layer.provide(TableSink.layer(name!)),
  Layer.provide(Postgres.layer()),
  Layer.provide(PgClient.layer({ url: Redacted.make(url!) })),
  Layer.provide(PumpConfig.layer({ batchSize: 20, pollPeriod: "100 millis", publishTimeout: "5 seconds" })),
  Layer.tap(() => Console.log("running")),
  Layer.launch,
  Effect.catchAllCause(Effect.logError),
  NodeRuntime.runMain
)
