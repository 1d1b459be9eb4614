import * as Migrator from "@effect/sql/Migrator"
import * as SqlClient from "@effect/sql/SqlClient"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Names from "./names.js"

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

/** Migrations that are run together, and remembered in a table of their own. */
export interface Plan {
  readonly schema: string
  /** Where the migrations that ran are remembered, in the schema. */
  readonly table: string
  /** The two keys of the advisory lock that makes processes wait for each other. */
  readonly lock: readonly [number, number]
  readonly migrations: ReadonlyArray<Migration & { readonly sql: string }>
}

const qualified = ({ schema, table }: Plan) => `${Names.quote(schema)}.${table}`

const prepare = (plan: Plan) => `
SELECT pg_advisory_xact_lock(${plan.lock.join(", ")});
CREATE SCHEMA IF NOT EXISTS ${Names.quote(plan.schema)};
CREATE TABLE IF NOT EXISTS ${qualified(plan)} (
  migration_id integer PRIMARY KEY,
  created_at timestamptz NOT NULL DEFAULT now(),
  name text NOT NULL
);
SET LOCAL search_path TO ${Names.quote(plan.schema)};
`

const describe = (error: unknown): string => {
  const inner = error instanceof Error && error.cause instanceof Error ? describe(error.cause) : undefined
  return inner ?? (error instanceof Error ? error.message : String(error))
}

/** A `MigrationFailed` for what the driver reported. */
export const failed =
  (schema: string) =>
  (cause: unknown): MigrationFailed =>
    new MigrationFailed({
      schema,
      message: `Could not migrate schema ${JSON.stringify(schema)}: ${describe(cause)}`,
      cause
    })

/**
 * Runs the migrations that are missing, in one transaction, and answers them. Where none is missing it only reads: who
 * runs the service needs no right to create anything.
 */
export const run = (plan: Plan): Effect.Effect<ReadonlyArray<Migration>, MigrationFailed, SqlClient.SqlClient> =>
  Effect.gen(function* () {
    const found = yield* Effect.mapError(current(plan), failed(plan.schema))
    if (found >= plan.migrations[plan.migrations.length - 1]!.id) return []
    const sql = (yield* SqlClient.SqlClient).withoutTransforms()
    // Only the Migrator's own table is looked up by search_path; the migrations qualify every name.
    const migrate = Migrator.make({})({
      table: plan.table,
      loader: Migrator.fromRecord(
        Object.fromEntries(
          plan.migrations.map(({ id, name, sql: text }) => [
            `${String(id).padStart(4, "0")}_${name}`,
            Effect.asVoid(sql.unsafe(text))
          ])
        )
      )
    })
    const ran = yield* sql.unsafe(prepare(plan)).pipe(
      Effect.zipRight(migrate),
      sql.withTransaction,
      // A migration that fails, and a commit that does, are defects to @effect/sql.
      Effect.catchAllCause((cause) =>
        Cause.isInterruptedOnly(cause) ? Effect.interrupt : failed(plan.schema)(Cause.squash(cause))
      )
    )
    return ran.map(([id, name]) => ({ id, name }))
  })

/** The SQL that `run` executes on an empty database. */
export const print = (plan: Plan): string => {
  const body = plan.migrations.map(
    ({ id, name, sql }) =>
      `-- Migration ${id}: ${name}\n${sql}\nINSERT INTO ${qualified(plan)} (migration_id, name) VALUES (${id}, ${Names.literal(name)});`
  )
  return ["BEGIN;", prepare(plan).trim(), ...body, "COMMIT;", ""].join("\n\n")
}

/** The newest migration that the database has, 0 where it has none. */
export const current = (plan: Plan) =>
  Effect.gen(function* () {
    const sql = (yield* SqlClient.SqlClient).withoutTransforms()
    const [exists] = yield* sql.unsafe<{ readonly found: boolean }>(`SELECT to_regclass($1) IS NOT NULL AS found`, [
      qualified(plan)
    ])
    if (exists?.found !== true) return 0
    const [row] = yield* sql.unsafe<{ readonly id: number }>(
      `SELECT coalesce(max(migration_id), 0) AS id FROM ${qualified(plan)}`
    )
    return row?.id ?? 0
  })
