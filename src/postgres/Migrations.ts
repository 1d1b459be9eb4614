/**
 * Creates and upgrades the outbox's tables, through the Migrator of `@effect/sql` with a table of their own
 * (`controlpublish_migrations`, in the outbox's schema).
 *
 * @since 1.0.0
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
 * Where the outbox's tables are.
 *
 * @since 1.0.0
 * @category models
 */
export interface Options {
  /** The PostgreSQL schema that holds the outbox; created where it is missing. Default `public`. */
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
 * @since 1.0.0
 * @category constants
 */
export const latest: Migrator.Migration = migrations[migrations.length - 1]!

/**
 * This version cannot work with the tables as they are.
 *
 * @since 1.0.0
 * @category errors
 */
export class SchemaMismatch extends Schema.TaggedError<SchemaMismatch>("controlpublish/SchemaMismatch")(
  "SchemaMismatch",
  {
    schema: Schema.String,
    /** The newest migration that the database has, 0 where it has none. */
    current: Schema.Number
  }
) {
  /**
   * @since 1.0.0
   */
  override get message(): string {
    const migrate = 'run "controlpublish migrate" first'
    return Migrator.explain(this, latest, { nothing: "outbox", whose: "", migrate })
  }
}

/**
 * The sequence of ids stands below ids that the outbox has, as after a copy of the table or a logical replication, which
 * leave sequences behind. What is appended would come before what waits, and break the order of its key.
 *
 * @since 1.0.0
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
   * @since 1.0.0
   */
  override get message(): string {
    const { outbox, sequence } = Names.make(this.schema)
    return (
      `the sequence ${sequence} stands at ${this.drawn}, and the outbox has the id ${this.highest}: appends would break ` +
      `the order. Stop the programs that append, and run SELECT setval(${Names.literal(sequence)}, (SELECT max(id) FROM ${outbox}))`
    )
  }
}

/** Roles that may not read the sequence or the ids neither pump nor append by id, and are not told. */
const checkSequence = (
  schema: string
): Effect.Effect<void, SequenceBehind | SqlError.SqlError, SqlClient.SqlClient> => {
  const { outbox, sequence } = Names.make(schema)
  return Effect.flatMap(SqlClient.SqlClient, (sql) =>
    // Every name is qualified, whatever search_path the role has. The table's snapshot is older than the look at the
    // sequence, so that an append in between is no finding.
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
 * Fails with a `SchemaMismatch` where this version cannot work with the tables: they are older than it needs, or so much
 * newer that they break it. Tables that are newer and break nothing are said in a warning. Fails with `SequenceBehind` where
 * appends would break the order.
 *
 * @since 1.0.0
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
 * Runs the migrations that are missing, in one transaction, and answers them. Processes that run it at the same time
 * wait for each other. Pumps and appends of versions before go on meanwhile, and after. Tables that are newer are left as
 * they are, or refused, see {@link check}.
 *
 * @since 1.0.0
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
