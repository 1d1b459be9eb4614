/**
 * Creates and upgrades the tables of a node. The migrations that ran are recorded in their own table
 * `controlpublish_fleet_migrations`, because a node's database is seldom the outbox's.
 *
 * @since 0.1.0
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import type * as SqlError from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Migrator from "./internal/migrator.js"
import * as Names from "./internal/names.js"
import { initial } from "./internal/fleetInitial.js"
import { markFeed } from "./internal/fleetMarkFeed.js"
import { layerConfig as makeLayerConfig, type LayerConfig } from "../internal/layerConfig.js"

/**
 * Where a node's tables are.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The PostgreSQL schema of `applied_events`. Created if it is missing. Default `public`. */
  readonly schema?: string | undefined
}

const migrations = [
  { id: 1, name: "initial", sql: initial },
  { id: 2, name: "mark_feed", sql: markFeed }
] as const

const plan = ({ schema = "public" }: Options): Migrator.Plan => ({
  schema,
  table: "controlpublish_fleet_migrations",
  lock: [Names.make(schema).orderLock, -3],
  migrations: migrations.map(({ sql, ...migration }) => ({ ...migration, sql: sql(schema) }))
})

/**
 * The migration that this version of the package needs.
 *
 * @since 0.1.0
 * @category constants
 */
export const latest: Migrator.Migration = migrations[migrations.length - 1]!

/**
 * This version cannot work with a node's tables as they are.
 *
 * @since 0.1.0
 * @category errors
 */
export class FleetSchemaMismatch extends Schema.TaggedError<FleetSchemaMismatch>("controlpublish/FleetSchemaMismatch")(
  "FleetSchemaMismatch",
  {
    schema: Schema.String,
    /** The newest migration of the database, 0 if it has none. */
    current: Schema.Number
  }
) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    return Migrator.explain(this, latest, {
      nothing: "tables of a node",
      whose: "the node's ",
      migrate: 'run "controlpublish migrate --node" or FleetMigrations.run first'
    })
  }
}

/**
 * Fails with a `FleetSchemaMismatch` if this version cannot work with the tables: they are older than it needs, or
 * newer and incompatible. Logs a warning if they are newer and compatible.
 *
 * @since 0.1.0
 * @category constructors
 */
export const check = (
  options: Options = {}
): Effect.Effect<void, FleetSchemaMismatch | SqlError.SqlError, SqlClient.SqlClient> => {
  const { schema, ...planned } = plan(options)
  return Effect.flatMap(Migrator.current({ schema, ...planned }), (current) =>
    Migrator.accept(schema, current, latest, new FleetSchemaMismatch({ schema, current }))
  )
}

/**
 * Runs the missing migrations in one transaction and returns them. Concurrent runs wait for each other.
 *
 * @since 0.1.0
 * @category constructors
 */
export const run = (
  options: Options = {}
): Effect.Effect<ReadonlyArray<Migrator.Migration>, Migrator.MigrationFailed, SqlClient.SqlClient> =>
  Migrator.run(plan(options))

/**
 * The SQL that `run` executes on an empty database, for teams with their own migration tool.
 *
 * @since 0.1.0
 * @category constructors
 */
export const print = (options: Options = {}): string => Migrator.print(plan(options))

/**
 * Runs the migrations when the layer is built.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: Options = {}): Layer.Layer<never, Migrator.MigrationFailed, SqlClient.SqlClient> =>
  Layer.effectDiscard(run(options))

/**
 * Provides the same as {@link layer}, its options read from `Config`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig: LayerConfig<Options, never, Migrator.MigrationFailed, SqlClient.SqlClient> =
  makeLayerConfig(layer)
