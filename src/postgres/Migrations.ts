/**
 * Creates and upgrades the outbox's tables, through the Migrator of `@effect/sql` with a table of their own
 * (`controlpublish_migrations`, in the outbox's schema).
 *
 * @since 1.0.0
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import type * as SqlError from "@effect/sql/SqlError"
import type * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { initial } from "./internal/initial.js"
import * as Migrator from "./internal/migrator.js"
import * as Names from "./internal/names.js"
import { operating } from "./internal/operating.js"

export {
  /**
   * A migration failed, and nothing of this run was kept.
   *
   * @since 1.0.0
   * @category errors
   */
  MigrationFailed,
  /**
   * @since 1.0.0
   * @category models
   */
  type Migration
} from "./internal/migrator.js"

/**
 * @since 1.0.0
 * @category models
 */
export interface Options {
  /** The PostgreSQL schema that holds the outbox; created where it is missing. Default `public`. */
  readonly schema?: string | undefined
}

const migrations = [
  { id: 1, name: "initial", sql: initial },
  { id: 2, name: "operating", sql: operating }
] as const

const plan = ({ schema = "public" }: Options): Migrator.Plan => {
  const names = Names.make(schema)
  return {
    schema,
    table: "controlpublish_migrations",
    lock: [names.orderLock, -1],
    migrations: migrations.map(({ sql, ...migration }) => ({ ...migration, sql: sql(names) }))
  }
}

/**
 * The migration that this version of the package needs.
 *
 * @since 1.0.0
 * @category constants
 */
export const latest: Migrator.Migration = migrations[migrations.length - 1]!

/**
 * Runs the migrations that are missing, in one transaction, and answers them. Processes that run it at the same time
 * wait for each other.
 *
 * @since 1.0.0
 * @category constructors
 */
export const run = (
  options: Options = {}
): Effect.Effect<ReadonlyArray<Migrator.Migration>, Migrator.MigrationFailed, SqlClient.SqlClient> =>
  Migrator.run(plan(options))

/**
 * The SQL that `run` executes on an empty database, for teams that run migrations otherwise.
 *
 * @since 1.0.0
 * @category constructors
 */
export const print = (options: Options = {}): string => Migrator.print(plan(options))

/**
 * The newest migration that the database has, 0 where it has none.
 *
 * @since 1.0.0
 * @category constructors
 */
export const current = (options: Options = {}): Effect.Effect<number, SqlError.SqlError, SqlClient.SqlClient> =>
  Migrator.current(plan(options))

/**
 * Migrates when the layer is built.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer = (options: Options = {}): Layer.Layer<never, Migrator.MigrationFailed, SqlClient.SqlClient> =>
  Layer.effectDiscard(run(options))
