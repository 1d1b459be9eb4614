/**
 * `controlpublish serve`: migrates the outbox and runs a pump on it until it is stopped.
 *
 * @since 1.0.0
 */
import * as Command from "@effect/cli/Command"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Path from "node:path"
import * as Migrations from "../../postgres/Migrations.js"
import * as Postgres from "../../postgres/Postgres.js"
import * as Pump from "../../Pump.js"
import * as PumpConfig from "../../PumpConfig.js"
import type { Sink } from "../../Sink.js"
import * as FileSink from "../../sinks/FileSink.js"
import * as JetStreamSink from "../../sinks/JetStreamSink.js"
import { announce } from "../internal/announce.js"
import * as Database from "../internal/database.js"
import * as ServiceConfig from "../ServiceConfig.js"

type NamedSink = Exclude<ServiceConfig.SinkConfig, { readonly _tag: "nop" }>

const sinkLayer = (sink: NamedSink): Layer.Layer<Sink, FileSink.FileSinkError | JetStreamSink.JetStreamSinkError> =>
  sink._tag === "file" ? FileSink.layer(sink) : JetStreamSink.layer(sink)

const feedOf = (sink: NamedSink): string =>
  sink._tag === "file" ? Path.resolve(sink.directory) : `the stream ${sink.stream} at ${sink.servers.join(", ")}`

/** How this process was started, for commands to copy. */
const self = (): string => {
  const script = process.argv[1] ?? "controlpublish"
  const path = Path.relative(process.cwd(), script)
  // npm links the command by its name, and finds that of the project in whose directory it is run.
  return Path.basename(script) === "controlpublish" || path === Path.join("dist", "service", "bin.js")
    ? "npx controlpublish"
    : `node ${path || script}`
}

const appendCommand = (database: ServiceConfig.Database): string => {
  const schema = database.schema === "public" ? "" : ` --database-schema '${database.schema.replaceAll("'", "'\\''")}'`
  return `${self()} append${schema} --type tenant.created --tenant t1`
}

const serveInert = Effect.zipRight(
  announce({
    sink: "nop: nothing will be published, and no database is opened; set FEED_SINK=file or jetstream to publish"
  }),
  Effect.never
)

const serve = (database: ServiceConfig.Database, sink: NamedSink, pump: ServiceConfig.Pump) => {
  const { schema } = database
  const store = Postgres.layer({ schema }).pipe(
    Layer.provide(Migrations.layer({ schema })),
    Layer.provide(Database.layer(database))
  )
  // The feed comes first: one that cannot be used is told of before a database is started. What is built last is
  // closed first: the pump finishes its publishes while the feed and the database are still there.
  const layer = Pump.layer.pipe(
    Layer.provide(store),
    Layer.provide(PumpConfig.layer(pump)),
    Layer.provide(sinkLayer(sink))
  )
  const same = Database.isEmbedded(database) ? "in this directory" : "with the same DATABASE_URL"
  return Layer.build(layer).pipe(
    Effect.zipRight(
      announce({
        database: Database.describe(database),
        schema,
        sink: sink._tag,
        feed: feedOf(sink),
        append: `${appendCommand(database)}   (${same})`
      })
    ),
    Effect.zipRight(Effect.never),
    Effect.onInterrupt(() => Console.log("Stopping: finishing the publishes in flight.")),
    Effect.scoped
  )
}

/**
 * @since 1.0.0
 * @category commands
 */
export const command = Command.make("serve", ServiceConfig.serveFlags, (flags) =>
  Effect.gen(function* () {
    const database = yield* ServiceConfig.database
    const sink = yield* ServiceConfig.sink
    const pump = yield* ServiceConfig.pump
    return yield* sink._tag === "nop" ? serveInert : serve(database, sink, pump)
  }).pipe(
    ServiceConfig.withFlags(flags),
    // To be stopped is how it ends well.
    Effect.onInterrupt(() =>
      Effect.sync(() => {
        process.exitCode = 0
      })
    )
  )
).pipe(
  Command.withDescription(
    "Publish events until SIGINT or SIGTERM. Creates or migrates the outbox first. A stop finishes the publishes in flight."
  )
)
