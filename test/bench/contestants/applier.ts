// The applier of this project on a node: every event in a transaction with its mark and the cursor.
import * as PgClient from "@effect/sql-pg/PgClient"
import * as SqlClient from "@effect/sql/SqlClient"
import { Effect, Layer, Logger, LogLevel, ManagedRuntime, Redacted, Stream } from "effect"
import { setFlagsFromString } from "node:v8"
import { Applier, ArtifactStore, Handlers } from "../../../src/fleet/index.js"
import { JetStreamSource } from "../../../src/jetstream/index.js"
import { PostgresAppliedEvents } from "../../../src/postgres/index.js"
import { contestant, sharedClock } from "../support/contestant.js"
import { applyAllSql, applySql } from "../support/node.js"

// As the service does.
setFlagsFromString("--heap-growing-percent=50")

contestant(async ({ databaseUrl, natsUrl, options, schema, stream }) => {
  /** When each event was applied, by its version. */
  const applied: Record<string, number> = {}
  let position = 0
  const statement = applySql(schema)
  const together = applyAllSql(schema)
  const perEvent = Handlers.make(
    [],
    {},
    {
      otherwise: ({ event }) =>
        Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe(statement, [event.tenant_id, event.event_id]))
    }
  )
  const batches = Handlers.makeBatch(
    [],
    {},
    {
      otherwise: (batch) =>
        Effect.flatMap(SqlClient.SqlClient, (sql) =>
          sql.unsafe(together, [batch.map(({ event }) => event.tenant_id), batch.map(({ event }) => event.event_id)])
        )
    }
  )
  const handlers = options?.batch === 1 ? batches : perEvent
  const runtime = ManagedRuntime.make(
    (options?.live === 1 ? Applier.layer(handlers) : Applier.layerManual(handlers)).pipe(
      Layer.provide(JetStreamSource.layer({ servers: [natsUrl], stream })),
      Layer.provide(PostgresAppliedEvents.layer({ schema })),
      Layer.provide(ArtifactStore.layerNone),
      Layer.provideMerge(PgClient.layer({ url: Redacted.make(databaseUrl) })),
      Layer.provide(Logger.minimumLogLevel(LogLevel.Warning))
    )
  )
  const applier = await runtime.runPromise(Applier.Applier)
  if (options?.live === 1) {
    runtime.runFork(
      Stream.runForEach(applier.changes, (status) =>
        Effect.sync(() => {
          const now = sharedClock()
          while (position < status.position) applied[++position] = now
        })
      )
    )
  }
  /** Until so many versions are applied. */
  const live = async (versions: number) => {
    while (position < versions) await new Promise((resolve) => setTimeout(resolve, 20))
    return applied
  }
  return {
    work: async (versions): Promise<Record<string, number>> =>
      options?.live === 1 ? live(versions) : { applied: (await runtime.runPromise(applier.drain)).applied },
    close: () => runtime.dispose()
  }
})
