/**
 * `controlpublish serve`: migrates the outbox and runs a pump on it until it is stopped.
 *
 * @since 0.1.0
 */
import * as Command from "@effect/cli/Command"
import * as HttpServer from "@effect/platform/HttpServer"
import * as Console from "effect/Console"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Path from "node:path"
import type { OutboxAdmin } from "../../OutboxAdmin.js"
import * as Migrations from "../../postgres/Migrations.js"
import * as Postgres from "../../postgres/Postgres.js"
import * as PostgresOutboxAdmin from "../../postgres/PostgresOutboxAdmin.js"
import * as Pump from "../../Pump.js"
import * as PumpConfig from "../../PumpConfig.js"
import * as Retention from "../../Retention.js"
import type { Sink } from "../../Sink.js"
import * as FileSettings from "../../file/FileSettings.js"
import * as FileSink from "../../file/FileSink.js"
import * as JetStreamSink from "../../jetstream/JetStreamSink.js"
import { announce } from "../internal/announce.js"
import type * as AdminServer from "../../admin/AdminServer.js"
import * as Database from "../internal/database.js"
import { endsWell } from "../internal/endsWell.js"
import * as Services from "../internal/services.js"
import { isLoopback } from "../../admin/internal/loopback.js"
import * as NoOutbox from "../../admin/NoOutbox.js"
import * as PumpReports from "../../admin/PumpReports.js"
import * as AdminSettings from "../../admin/AdminSettings.js"
import * as DatabaseSettings from "../../postgres/DatabaseSettings.js"
import type { InvalidSetting } from "../../Setting.js"
import * as FeedSettings from "../FeedSettings.js"
import * as PumpSettings from "../../PumpSettings.js"
import * as SettingFlags from "../SettingFlags.js"

type NamedSink = Exclude<FeedSettings.SinkConfig, { readonly _tag: "nop" }>

/** An unusable directory is reported under the name of its setting. */
const sinkLayer = (
  sink: NamedSink
): Layer.Layer<Sink, FileSink.FileSinkError | JetStreamSink.JetStreamSinkError | InvalidSetting> =>
  sink._tag === "file"
    ? Layer.catchAll(FileSink.layer(sink), (error) =>
        Layer.fail(error.reason === "unusable" ? FileSettings.unusable(error.message) : error)
      )
    : JetStreamSink.layer(sink)

const feedOf = (sink: NamedSink): string =>
  sink._tag === "file" ? Path.resolve(sink.directory) : `the stream ${sink.stream} at ${sink.servers.join(", ")}`

/** Quotes a word for a shell if needed. */
const shellWord = (word: string): string =>
  /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`

/** What `npx controlpublish` and `npm start` run in a checkout. */
const ownCommands = [Path.join("dist", "node", "command.js"), Path.join("src", "cli", "dist", "bin.js")]

/** How this process was started, for commands to copy. */
const self = (): string => {
  const script = process.argv[1] ?? "controlpublish"
  const path = Path.relative(process.cwd(), script)
  // npm links the command by its name and finds it from within the project.
  return Path.basename(script) === "controlpublish" || ownCommands.includes(path)
    ? "npx controlpublish"
    : `node ${shellWord(path || script)}`
}

const appendCommand = (database: DatabaseSettings.Database): string => {
  const schema = database.schema === "public" ? "" : ` --database-schema ${shellWord(database.schema)}`
  return `${self()} append${schema} --type tenant.created --tenant t1`
}

/** The address of the admin API, and who can reach it. */
const addressOf = (url: string, admin: AdminServer.Options): string => {
  if (!isLoopback(admin.host)) return `${url} (BEYOND THIS MACHINE, with a token)`
  const taken = admin.orFree && !url.endsWith(`:${admin.port}`)
  return `${url} (${taken ? `${admin.port} is taken; ` : ""}this machine only)`
}

interface Parts<E> {
  readonly admin: AdminServer.Options | undefined
  readonly outbox: Layer.Layer<OutboxAdmin, E>
  readonly working: Layer.Layer<Pump.Pump | Retention.Retention | Sink, E>
  readonly lines: Record<string, string>
  /** The setting that the commands of this service need. */
  readonly of: { readonly database: string; readonly schema: string }
  /** The line at the beginning of a stop. */
  readonly stopping: string
}

/**
 * Runs until stopped. The port is opened first, so that a taken one is reported before anything starts. At the end the
 * pump stops first: until it has finished, the API reports that it is stopping and not ready.
 */
const run = <E>({ admin, lines, of, outbox, stopping, working }: Parts<E>) =>
  Effect.gen(function* () {
    // Other commands should not load a server.
    const AdminServer = yield* Effect.promise(() => import("../../admin/AdminServer.js"))
    const scope = yield* Effect.scope
    // What both need, such as the database, is closed last.
    const memoMap = yield* Layer.makeMemoMap
    const api = admin && {
      options: admin,
      server: Context.get(yield* Layer.build(AdminServer.layerServer(admin)), HttpServer.HttpServer)
    }
    const pumping = yield* Scope.fork(scope, ExecutionStrategy.sequential)
    const work = yield* Layer.buildWithMemoMap(working, memoMap, pumping)
    const context = Context.merge(work, yield* Layer.buildWithMemoMap(outbox, memoMap, scope))
    if (api !== undefined) {
      yield* Effect.provide(
        Layer.build(AdminServer.layer(api.options)),
        Context.add(context, HttpServer.HttpServer, api.server)
      )
    }
    // Until the pump has stopped, so that it is listed as stopping.
    yield* Effect.provide(Layer.build(PumpReports.layer), context)
    yield* Effect.addFinalizer((exit) => Scope.close(pumping, exit))
    if (api !== undefined) {
      const url = AdminServer.urlOf(api.server, api.options).replace(/\/\/(0\.0\.0\.0|\[::\])(?=:)/, "//127.0.0.1")
      yield* Services.announce({ url, ...of })
    }
    yield* announce({
      ...lines,
      admin: api === undefined ? "off" : addressOf(AdminServer.urlOf(api.server, api.options), api.options)
    })
    return yield* Effect.never
  }).pipe(
    Effect.onInterrupt(() => Console.log(stopping)),
    Effect.scoped,
    Effect.onInterrupt(() => Console.log("Stopped."))
  )

const serveInert = (admin: AdminServer.Options | undefined) =>
  run({
    admin,
    outbox: NoOutbox.layer,
    working: NoOutbox.layer,
    of: { database: "no database: the sink is nop", schema: "" },
    stopping: "Stopping.",
    lines: {
      sink: "nop: nothing will be published, and no database is opened; set FEED_SINK=file or jetstream to publish"
    }
  })

const serve = (
  database: DatabaseSettings.Database,
  sink: NamedSink,
  pump: PumpSettings.Pump,
  keep: Retention.Keep,
  admin: AdminServer.Options | undefined
) => {
  const { schema } = database
  const migrated = Layer.provideMerge(Migrations.layer({ schema }), Database.layer(database))
  const outbox = Layer.provide(PostgresOutboxAdmin.layer({ schema }), migrated)
  // The feed comes first: one that cannot be used is told of before a database is started. What is built last is
  // closed first: the pump finishes its publishes while the feed and the database are still there.
  const working = Layer.merge(
    Pump.layer.pipe(Layer.provide(Postgres.layer(database)), Layer.provide(PumpConfig.layer(pump))),
    Layer.provide(Retention.layer({ keep }), outbox)
  ).pipe(Layer.provide(migrated), Layer.provideMerge(sinkLayer(sink)))
  const same = Database.isEmbedded(database) ? "in this directory" : "with the same DATABASE_URL"
  return run({
    admin,
    outbox,
    working,
    of: { database: Database.describe(database), schema },
    stopping: "Stopping: finishing the publishes in flight.",
    lines: {
      database: Database.describe(database),
      schema,
      sink: sink._tag,
      feed: feedOf(sink),
      append: `${appendCommand(database)}   (${same})`
    }
  })
}

/**
 * Runs the pump with the dashboard and the admin API.
 *
 * @since 0.1.0
 * @category commands
 */
export const command = Command.make(
  "serve",
  {
    settings: SettingFlags.make(
      DatabaseSettings.group,
      ...FeedSettings.sinkGroups,
      PumpSettings.group,
      PumpSettings.retentionGroup,
      AdminSettings.serverGroup
    )
  },
  ({ settings }) =>
    Effect.gen(function* () {
      const database = yield* DatabaseSettings.database
      const sink = yield* FeedSettings.sink
      const pump = yield* PumpSettings.pump
      const keep = yield* PumpSettings.retention
      const admin = yield* AdminSettings.server
      return yield* sink._tag === "nop" ? serveInert(admin) : serve(database, sink, pump, keep, admin)
    }).pipe(SettingFlags.provide(settings), endsWell)
).pipe(
  Command.withDescription(
    "Publish events until stopped (SIGINT, SIGTERM or SIGHUP). Creates or migrates the outbox first. A stop finishes the publishes in flight."
  )
)
