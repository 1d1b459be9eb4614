// An applier in a process of its own: `node applierProcess.mjs DATABASE_URL DIRECTORY KILL_AT N`. It kills itself with -9
// at the Nth `handler` (its statement has run, its transaction is open) or `acknowledge` (its transaction is committed).
import { NodeRuntime } from "@effect/platform-node"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as SqlClient from "@effect/sql/SqlClient"
import { Console, Effect, Layer, Logger, LogLevel, Redacted } from "effect"
import { FileSource } from "../../src/file/index.js"
import { Applier, ArtifactStore, Handlers, Source } from "../../src/fleet/index.js"
import { PostgresAppliedEvents } from "../../src/postgres/index.js"

const [, , url, directory, killAt, n] = process.argv

let reached = 0
const dieAt = (step: string) =>
  Effect.sync(() => {
    if (step === killAt && ++reached === Number(n)) process.kill(process.pid, "SIGKILL")
  })

const handlers = Handlers.make(
  [],
  {},
  {
    otherwise: ({ event }) =>
      Effect.flatMap(
        SqlClient.SqlClient,
        (sql) => sql`
          WITH counted AS (UPDATE counter SET n = n + 1)
          INSERT INTO log (event_id, version, applier) VALUES (${event.event_id}, ${event.control_version}, ${process.pid})`
      ).pipe(Effect.zipRight(dieAt("handler")))
  }
)

const source = Layer.effect(
  Source.Source,
  Effect.map(FileSource.make({ directory: directory! }), (source) => ({
    ...source,
    acknowledge: (version) => Effect.zipRight(dieAt("acknowledge"), source.acknowledge(version))
  }))
)

Applier.layer(handlers).pipe(
  Layer.provide(source),
  Layer.provide(PostgresAppliedEvents.layer()),
  Layer.provide(ArtifactStore.layerNone),
  Layer.provide(PgClient.layer({ url: Redacted.make(url!), maxConnections: 2 })),
  Layer.tap(() => Console.log("running")),
  Layer.launch,
  Effect.catchAllCause(Effect.logError),
  Logger.withMinimumLogLevel(LogLevel.Error),
  NodeRuntime.runMain
)
