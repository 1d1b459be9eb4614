// An applier in a process of its own: `node applierProcess.mjs DATABASE DIRECTORY KILL_AT N`. DATABASE is the URL of a
// PostgreSQL, or sqlite:FILE. It kills itself with -9
// at the Nth `handler` (its statement has run, its transaction is open) or `acknowledge` (its transaction is committed).
import { NodeRuntime } from "@effect/platform-node"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import * as SqlClient from "@effect/sql/SqlClient"
import { Console, Effect, Layer, Logger, LogLevel, Redacted } from "effect"
import { FileSource } from "../../src/file/index.js"
import { type AppliedEvents, Applier, ArtifactStore, Handlers, Source } from "../../src/fleet/index.js"
import { PostgresAppliedEvents } from "../../src/postgres/index.js"
import { SqliteAppliedEvents } from "../../src/sqlite/index.js"

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
      Effect.flatMap(SqlClient.SqlClient, (sql) => {
        const { control_version: version, event_id } = event
        const log = sql`INSERT INTO log ${sql.insert({ event_id, version, applier: process.pid })}`
        return sql.onDialectOrElse({
          sqlite: () => Effect.asVoid(Effect.zipRight(sql`UPDATE counter SET n = n + 1`, log)),
          orElse: () => Effect.asVoid(sql`WITH counted AS (UPDATE counter SET n = n + 1) ${log}`)
        })
      }).pipe(Effect.zipRight(dieAt("handler")))
  }
)

const source = Layer.effect(
  Source.Source,
  Effect.map(FileSource.make({ directory: directory! }), (source) => ({
    ...source,
    acknowledge: (version) => Effect.zipRight(dieAt("acknowledge"), source.acknowledge(version))
  }))
)

const node: Layer.Layer<AppliedEvents.AppliedEvents | SqlClient.SqlClient, unknown> = url!.startsWith("sqlite:")
  ? SqliteAppliedEvents.layer.pipe(Layer.provideMerge(SqliteClient.layer({ filename: url!.slice("sqlite:".length) })))
  : PostgresAppliedEvents.layer().pipe(
      Layer.provideMerge(PgClient.layer({ url: Redacted.make(url!), maxConnections: 2 }))
    )

Applier.layer(handlers).pipe(
  Layer.provide(source),
  Layer.provide(node),
  Layer.provide(ArtifactStore.layerNone),
  Layer.tap(() => Console.log("running")),
  Layer.launch,
  Effect.catchAllCause(Effect.logError),
  Logger.withMinimumLogLevel(LogLevel.Error),
  NodeRuntime.runMain
)
