/**
 * `controlpublish apply`: applies artifacts of rows from the feed to a PostgreSQL until it is stopped.
 *
 * @since 0.1.0
 */
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Path from "node:path"
import { AppliedEvents } from "../../fleet/AppliedEvents.js"
import * as Applier from "../../fleet/Applier.js"
import * as FileArtifactStore from "../../file/FileArtifactStore.js"
import * as FleetMigrations from "../../postgres/FleetMigrations.js"
import * as PostgresAppliedEvents from "../../postgres/PostgresAppliedEvents.js"
import { Source } from "../../fleet/Source.js"
import { announce } from "../internal/announce.js"
import { usage } from "../internal/CliError.js"
import * as Database from "../internal/database.js"
import { endsWell } from "../internal/endsWell.js"
import * as RowsArtifact from "../internal/rowsArtifact.js"
import * as SourceOf from "../internal/source.js"
import * as DatabaseSettings from "../../postgres/DatabaseSettings.js"
import * as FeedSettings from "../FeedSettings.js"
import * as SettingFlags from "../SettingFlags.js"

const applyNothing = Effect.zipRight(
  announce({
    source: "nop: nothing will be applied, and no database is opened; set FEED_SOURCE=file or jetstream to apply"
  }),
  Effect.never
)

/** Sets the position if --from asks for it. */
const start = (from: Option.Option<number>) =>
  Option.match(from, {
    onNone: () => Effect.void,
    onSome: (position) =>
      Effect.gen(function* () {
        const applied = yield* AppliedEvents
        const { identity } = yield* Effect.flatMap(Source, ({ look }) => look)
        yield* applied.seek({ feed: identity, position })
      })
  })

const apply = (
  database: DatabaseSettings.Database,
  source: FeedSettings.SourceConfig,
  settings: FeedSettings.Apply,
  from: Option.Option<number>
) => {
  const { schema } = database
  const artifactDirectory = Path.resolve(settings.artifacts.directory)
  const node = PostgresAppliedEvents.layer({ schema }).pipe(
    Layer.provide(FleetMigrations.layer({ schema })),
    Layer.provideMerge(Database.layer(database)),
    Layer.provideMerge(SourceOf.layer(source)),
    Layer.provideMerge(FileArtifactStore.layer(settings.artifacts))
  )
  const applier = Applier.layer(RowsArtifact.handlers(settings.tables), { cannotApply: settings.cannotApply })
  const layer = applier.pipe(Layer.provide(Layer.effectDiscard(start(from))), Layer.provide(node))
  return Layer.build(layer).pipe(
    Effect.zipRight(
      announce({
        database: Database.describe(database),
        schema,
        source: source._tag,
        feed: SourceOf.describe(source),
        artifacts: artifactDirectory,
        tables: settings.tables.size === 0 ? "none: set APPLY_TABLES" : Array.from(settings.tables).join(", ")
      })
    ),
    Effect.zipRight(Effect.never),
    Effect.onInterrupt(() => Console.log("Stopping: finishing the events in flight.")),
    Effect.scoped,
    Effect.onInterrupt(() => Console.log("Stopped."))
  )
}

/**
 * Applies the feed to the tables of this node's database.
 *
 * @since 0.1.0
 * @category commands
 */
export const command = Command.make(
  "apply",
  {
    settings: SettingFlags.make(DatabaseSettings.group, ...FeedSettings.sourceGroups, ...FeedSettings.applyGroups),
    from: Options.integer("from").pipe(
      Options.withDescription(
        "Continue after this control version instead of the node's position: a snapshot's version for a new node, 0 for everything. Events marked as applied are skipped"
      ),
      Options.optional
    )
  },
  ({ from, settings }) =>
    Effect.gen(function* () {
      if (Option.exists(from, (position) => position < 0)) return yield* usage("--from: valid is an integer from 0")
      const database = yield* DatabaseSettings.database
      const source = yield* FeedSettings.source
      const settings = yield* FeedSettings.apply
      return yield* source._tag === "nop" ? applyNothing : apply(database, source, settings, from)
    }).pipe(SettingFlags.provide(settings), endsWell)
).pipe(
  Command.withDescription(
    "Apply artifacts of rows from the feed until it is stopped (SIGINT, SIGTERM or SIGHUP). Creates or migrates its tables first. A stop finishes the events in flight."
  )
)
