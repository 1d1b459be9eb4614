/**
 * Creates and upgrades the outbox's tables with the Migrator of `@effect/sql`. The migrations that ran are recorded in
 * the table `controlpublish_migrations` in the outbox's schema.
 *
 * @since 0.1.0
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type * as SqlError from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { attended } from "./internal/attended.js"
import { audited } from "./internal/audited.js"
import * as Columns from "./internal/columns.js"
import { guarded } from "./internal/guarded.js"
import { initial } from "./internal/initial.js"
import * as Migrator from "./internal/migrator.js"
import * as Names from "./internal/names.js"
import { operating } from "./internal/operating.js"

export {
  /**
   * A migration failed. The run was rolled back as a whole.
   *
   * @since 0.1.0
   * @category errors
   */
  MigrationFailed,
  /**
   * @since 0.1.0
   * @category models
   */
  type Migration
} from "./internal/migrator.js"
import { layerConfig as makeLayerConfig, type LayerConfig } from "../internal/layerConfig.js"

/**
 * Where the outbox's tables are.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The PostgreSQL schema of the outbox. Created if it is missing. Default `public`. */
  readonly schema?: string | undefined
}

const migrations = [
  { id: 1, name: "initial", sql: initial },
  { id: 2, name: "operating", sql: operating },
  { id: 3, name: "guarded", sql: guarded },
  { id: 4, name: "audited", sql: audited },
  { id: 5, name: "attended", sql: attended }
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
 * @since 0.1.0
 * @category constants
 */
export const latest: Migrator.Migration = migrations[migrations.length - 1]!

/**
 * This version cannot work with the tables as they are.
 *
 * @since 0.1.0
 * @category errors
 */
export class SchemaMismatch extends Schema.TaggedError<SchemaMismatch>("controlpublish/SchemaMismatch")(
  "SchemaMismatch",
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
    const migrate = 'run "controlpublish migrate" first'
    return Migrator.explain(this, latest, { nothing: "outbox", whose: "", migrate })
  }
}

/**
 * The sequence of ids is behind the ids of the outbox, as after a copy of the table or a logical replication, which do
 * not copy sequences. New events would be published before older ones of their key.
 *
 * @since 0.1.0
 * @category errors
 */
export class SequenceBehind extends Schema.TaggedError<SequenceBehind>("controlpublish/SequenceBehind")(
  "SequenceBehind",
  {
    schema: Schema.String,
    /** The last id that the sequence drew. */
    drawn: Schema.String,
    /** The highest id in the outbox. */
    highest: Schema.String
  }
) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    const { outbox, sequence } = Names.make(this.schema)
    return (
      `the sequence ${sequence} is at ${this.drawn}, but the outbox has the id ${this.highest}: appends would break ` +
      `the order. Stop the programs that append, and run SELECT setval(${Names.literal(sequence)}, (SELECT max(id) FROM ${outbox}))`
    )
  }
}

/** Roles that may not read the sequence or the ids neither run a pump nor append: no check for them. */
const checkSequence = (
  schema: string
): Effect.Effect<void, SequenceBehind | SqlError.SqlError, SqlClient.SqlClient> => {
  const { outbox, sequence } = Names.make(schema)
  return Effect.flatMap(SqlClient.SqlClient, (sql) =>
    // Every name is qualified, so that the role's search_path does not matter. The table's snapshot is taken before the
    // sequence is read, so that an append in between is not reported.
    sql.withoutTransforms().unsafe<{ readonly drawn: string; readonly highest: string }>(
      `SELECT pg_catalog.concat(${Columns.drawn(sequence)}) AS drawn,
        (SELECT pg_catalog.concat(pg_catalog.max(id)) FROM ${outbox}) AS highest`
    )
  ).pipe(
    Effect.catchIf(
      (error) => isRefused(error.cause),
      () => Effect.succeed([])
    ),
    Effect.flatMap(([row]) =>
      row !== undefined && BigInt(row.highest) > BigInt(row.drawn)
        ? new SequenceBehind({ schema, drawn: row.drawn, highest: row.highest })
        : Effect.void
    )
  )
}

const isRefused = (cause: unknown): boolean =>
  typeof cause === "object" && cause !== null && "code" in cause && cause.code === "42501"

const accept = (schema: string, current: number): Effect.Effect<void, SchemaMismatch> =>
  Migrator.accept(schema, current, latest, new SchemaMismatch({ schema, current }))

/**
 * Fails with a `SchemaMismatch` if this version cannot work with the tables: they are older than it needs, or newer and
 * incompatible. Logs a warning if they are newer and compatible. Fails with `SequenceBehind` if appends would break the
 * order.
 *
 * @since 0.1.0
 * @category constructors
 */
export const check = (
  options: Options = {}
): Effect.Effect<void, SchemaMismatch | SequenceBehind | SqlError.SqlError, SqlClient.SqlClient> => {
  const { schema = "public" } = options
  return Effect.zipRight(
    Effect.flatMap(current(options), (found) => accept(schema, found)),
    checkSequence(schema)
  )
}

/**
 * Runs the missing migrations in one transaction and returns them. Concurrent runs wait for each other. Pumps and
 * appends of earlier versions continue meanwhile and afterwards. Newer tables are left as they are, or rejected: see
 * {@link check}.
 *
 * @since 0.1.0
 * @category constructors
 */
export const run = (
  options: Options = {}
): Effect.Effect<ReadonlyArray<Migrator.Migration>, Migrator.MigrationFailed, SqlClient.SqlClient> => {
  const { schema, ...planned } = plan(options)
  const failed = (cause: Error) => new Migrator.MigrationFailed({ schema, message: cause.message, cause })
  return Effect.flatMap(Effect.mapError(current(options), Migrator.failed(schema)), (found) =>
    found > latest.id
      ? Effect.as(Effect.mapError(accept(schema, found), failed), [])
      : Effect.zipLeft(
          Migrator.run({ schema, ...planned }),
          Effect.mapError(checkSequence(schema), (error) =>
            error instanceof SequenceBehind ? failed(error) : Migrator.failed(schema)(error)
          )
        )
  )
}

/**
 * The SQL that `run` executes on an empty database, for teams with their own migration tool.
 *
 * @since 0.1.0
 * @category constructors
 */
export const print = (options: Options = {}): string => Migrator.print(plan(options))

/**
 * The newest migration of the database, 0 if it has none.
 *
 * @since 0.1.0
 * @category constructors
 */
export const current = (options: Options = {}): Effect.Effect<number, SqlError.SqlError, SqlClient.SqlClient> =>
  Migrator.current(plan(options))

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
