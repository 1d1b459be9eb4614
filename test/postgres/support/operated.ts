import * as PgClient from "@effect/sql-pg/PgClient"
import { Effect, Layer } from "effect"
import { Pump, PumpConfig } from "../../../src/index.js"
import { PostgresOutboxAdmin } from "../../../src/postgres/index.js"
import { MemorySink } from "../../../src/testing/index.js"
import { layerClient, layerOutbox } from "../../support/postgres.js"

/** An outbox in a database of its own, with a pump that publishes when it is told to, and those who operate both. */
export const operated = Layer.mergeAll(PostgresOutboxAdmin.layer(), Pump.layerManual).pipe(
  Layer.provideMerge(MemorySink.layer),
  Layer.provideMerge(layerOutbox("public")),
  Layer.provide(PumpConfig.layerDefaults),
  Layer.provideMerge(layerClient)
)

export const query = (sql: string) =>
  Effect.flatMap(PgClient.PgClient, (client) => client.unsafe<Record<string, unknown>>(sql))
