/**
 * Creates and upgrades the outbox's tables, through the Migrator of `@effect/sql` with a table of their own
 * (`controlpublish_migrations`, in the outbox's schema).
 *
 * @since 1.0.0
 */
import * as Migrator from "@effect/sql/Migrator"
import * as SqlClient from "@effect/sql/SqlClient"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { initial } from "./internal/initial.js"
import * as Names from "./internal/names.js"

/**
 * @since 1.0.0
 * @category models
 */
export interface Options {
  /** The PostgreSQL schema that holds the outbox; created where it is missing. Default `public`. */
  readonly schema?: string | undefined
}

/**
 * A migration failed, and nothing of this run was kept.
 *
 * @since 1.0.0
 * @category errors
 */
export class MigrationFailed extends Schema.TaggedError<MigrationFailed>("controlpublish/MigrationFailed")(
  "MigrationFailed",
  {
    schema: Schema.String,
    message: Schema.String,
    cause: Schema.Defect
  }
) {}

/**
 * @since 1.0.0
 * @category models
 */
export interface Migration {
  readonly id: number
  readonly name: string
}

const all: ReadonlyArray<Migration & { readonly sql: (names: Names.Names) => string }> = [
  { id: 1, name: "initial", sql: initial }
]

/**
 * The migration that this version of the package needs.
 *
 * @since 1.0.0
 * @category constants
 */
export const latest: Migration = all[all.length - 1]!

const table = "controlpublish_migrations"

const prepare = (names: Names.Names) => `
SELECT pg_advisory_xact_lock(${names.orderLock}, -1);
CREATE SCHEMA IF NOT EXISTS ${Names.quote(names.schema)};
CREATE TABLE IF NOT EXISTS ${Names.quote(names.schema)}.${table} (
  migration_id integer PRIMARY KEY,
  created_at timestamptz NOT NULL DEFAULT now(),
  name text NOT NULL
);
SET LOCAL search_path TO ${Names.quote(names.schema)};
`

const describe = (error: unknown): string => {
  const inner = error instanceof Error && error.cause instanceof Error ? describe(error.cause) : undefined
  return inner ?? (error instanceof Error ? error.message : String(error))
}

/**
 * Runs the migrations that are missing, in one transaction, and answers them. Processes that run it at the same time
 * wait for each other.
 *
 * @since 1.0.0
 * @category constructors
 */
export const run = (
  options: Options = {}
): Effect.Effect<ReadonlyArray<Migration>, MigrationFailed, SqlClient.SqlClient> =>
  Effect.gen(function* () {
    const names = Names.make(options.schema ?? "public")
    const sql = (yield* SqlClient.SqlClient).withoutTransforms()
    // Only the Migrator's own table is looked up by search_path; the migrations qualify every name.
    const migrate = Migrator.make({})({
      table,
      loader: Migrator.fromRecord(
        Object.fromEntries(
          all.map(({ id, name, sql: text }) => [
            `${String(id).padStart(4, "0")}_${name}`,
            Effect.asVoid(sql.unsafe(text(names)))
          ])
        )
      )
    })
    const ran = yield* sql.unsafe(prepare(names)).pipe(
      Effect.zipRight(migrate),
      sql.withTransaction,
      // A migration that fails, and a commit that does, are defects to @effect/sql.
      Effect.catchAllCause((cause) =>
        Cause.isInterruptedOnly(cause)
          ? Effect.interrupt
          : new MigrationFailed({
              schema: names.schema,
              message: `Could not migrate schema ${JSON.stringify(names.schema)}: ${describe(Cause.squash(cause))}`,
              cause: Cause.squash(cause)
            })
      )
    )
    return ran.map(([id, name]) => ({ id, name }))
  })

/**
 * The SQL that `run` executes on an empty database, for teams that run migrations otherwise.
 *
 * @since 1.0.0
 * @category constructors
 */
export const print = (options: Options = {}): string => {
  const names = Names.make(options.schema ?? "public")
  const body = all.map(
    ({ id, name, sql }) =>
      `-- Migration ${id}: ${name}\n${sql(names)}\nINSERT INTO ${Names.quote(names.schema)}.${table} (migration_id, name) VALUES (${id}, ${Names.literal(name)});`
  )
  return ["BEGIN;", prepare(names).trim(), ...body, "COMMIT;", ""].join("\n\n")
}

/**
 * The newest migration that the database has, 0 where it has none.
 *
 * @since 1.0.0
 * @category constructors
 */
export const current = (options: Options = {}) =>
  Effect.gen(function* () {
    const sql = (yield* SqlClient.SqlClient).withoutTransforms()
    const qualified = `${Names.quote(options.schema ?? "public")}.${table}`
    const [exists] = yield* sql.unsafe<{ readonly found: boolean }>(`SELECT to_regclass($1) IS NOT NULL AS found`, [
      qualified
    ])
    if (exists?.found !== true) return 0
    const [row] = yield* sql.unsafe<{ readonly id: number }>(
      `SELECT coalesce(max(migration_id), 0) AS id FROM ${qualified}`
    )
    return row?.id ?? 0
  })

/**
 * Migrates when the layer is built.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer = (options: Options = {}): Layer.Layer<never, MigrationFailed, SqlClient.SqlClient> =>
  Layer.effectDiscard(run(options))
