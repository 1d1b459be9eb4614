import * as Migrator from "@effect/sql/Migrator"
import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Names from "./names.js"
import { withTransaction } from "./transaction.js"

/**
 * A migration failed. The run was rolled back as a whole.
 *
 * @since 0.1.0
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
 * @since 0.1.0
 * @category models
 */
export interface Migration {
  readonly id: number
  readonly name: string
}

/** Migrations that run together and are recorded in their own table. */
export interface Plan {
  readonly schema: string
  /** The table of the migrations that ran, in the schema. */
  readonly table: string
  /** The two keys of the advisory lock that serializes concurrent runs. */
  readonly lock: readonly [number, number]
  readonly migrations: ReadonlyArray<Migration & { readonly sql: string }>
}

const qualified = ({ schema, table }: Plan) => `${Names.quote(schema)}.${table}`

/** Names resolve in pg_catalog first. The schema follows for the Migrator's own table, which it does not qualify. */
const searchPath = (plan: Plan) => `SET LOCAL search_path TO pg_catalog, ${Names.quote(plan.schema)}, pg_temp`

/**
 * Creates the schema. Rejects a foreign table in the place of the record of migrations: its triggers would run with the
 * rights of the role that migrates. An existing schema requires no right to create schemas.
 */
const claimPlace = ({ schema, table }: Plan): string => `
DO ${Names.literal(`
DECLARE
  place oid;
  place_owner oid;
  found_owner oid;
BEGIN
  SELECT oid, nspowner INTO place, place_owner FROM pg_namespace WHERE nspname = ${Names.literal(schema)};
  IF place IS NULL THEN
    CREATE SCHEMA ${Names.quote(schema)};
  ELSIF NOT has_schema_privilege(place, 'CREATE') THEN
    RAISE EXCEPTION 'permission denied for schema %', ${Names.literal(schema)} USING ERRCODE = 'insufficient_privilege';
  END IF;
  SELECT relowner INTO found_owner FROM pg_class WHERE relnamespace = place AND relname = ${Names.literal(table)};
  IF found_owner IS NOT NULL AND NOT EXISTS (
    SELECT FROM pg_roles owner, pg_roles own
    WHERE owner.oid = found_owner AND own.rolname = current_user AND (owner.rolsuper OR owner.oid = own.oid
      OR owner.oid = place_owner OR owner.oid = (SELECT datdba FROM pg_database WHERE datname = current_database())
      OR (NOT own.rolsuper AND pg_has_role(own.oid, owner.oid, 'MEMBER')))
  ) THEN
    RAISE EXCEPTION 'the table ${table} belongs to the role %, which owns neither the schema nor the database: migrate as that role if the outbox is its own', found_owner::regrole
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
END
`)};
`

const prepare = (plan: Plan) => `
${searchPath(plan)};
SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 0;
SET LOCAL lock_timeout = 0;
SELECT pg_advisory_xact_lock(${plan.lock.join(", ")});
SET LOCAL lock_timeout TO DEFAULT;
${claimPlace(plan).trim()}
CREATE TABLE IF NOT EXISTS ${qualified(plan)} (
  migration_id integer PRIMARY KEY,
  created_at timestamptz NOT NULL DEFAULT now(),
  name text NOT NULL
);
`

// With another isolation, a run that waited for the lock would not see the migrations of the run before it.
export const begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"

/** The innermost reason of an error. */
export const describe = (error: unknown): string => {
  const inner = error instanceof Error && error.cause instanceof Error ? describe(error.cause) : undefined
  return inner ?? (error instanceof Error ? error.message : String(error))
}

/** Whether the server denied a statement to this role. */
const isForbidden = (error: unknown): boolean =>
  error instanceof Error && (("code" in error && error.code === "42501") || isForbidden(error.cause))

/** Makes a `MigrationFailed` from an error of the driver. */
export const failed =
  (schema: string) =>
  (cause: unknown): MigrationFailed =>
    new MigrationFailed({
      schema,
      message: `Could not migrate schema ${JSON.stringify(schema)}: ${describe(cause)}${
        isForbidden(cause) ? `. Run "controlpublish migrate" as the owner of the tables` : ""
      }`,
      cause
    })

/**
 * Runs the missing migrations in one transaction and returns them. If none is missing it only reads: the role of the
 * service needs no right to create anything.
 */
export const run = (plan: Plan): Effect.Effect<ReadonlyArray<Migration>, MigrationFailed, SqlClient.SqlClient> =>
  Effect.gen(function* () {
    const found = yield* Effect.mapError(current(plan), failed(plan.schema))
    if (found >= plan.migrations[plan.migrations.length - 1]!.id) return []
    const sql = (yield* SqlClient.SqlClient).withoutTransforms()
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
      Effect.mapError(failed(plan.schema)),
      Effect.zipRight(Effect.mapError(migrate, failed(plan.schema))),
      withTransaction(sql, () => failed(plan.schema), begin),
      // @effect/sql turns a failing migration into a defect.
      Effect.catchAllCause((cause) =>
        Cause.isInterruptedOnly(cause) ? Effect.interrupt : failed(plan.schema)(Cause.squash(cause))
      )
    )
    return ran.map(([id, name]) => ({ id, name }))
  })

/**
 * Describes why this version cannot work with the tables of a schema, and what to do. `whose` is empty for the outbox.
 */
export const explain = (
  { current, schema }: { readonly schema: string; readonly current: number },
  latest: Migration,
  { migrate, nothing, whose }: { readonly nothing: string; readonly whose: string; readonly migrate: string }
): string => {
  const name = `the schema ${JSON.stringify(schema)}`
  if (current === 0) return `${name} has no ${nothing}: ${migrate}`
  const found = `${name} has ${whose}migration ${current}`
  return current < latest.id
    ? `${found}, and this version needs ${latest.id}: ${migrate}`
    : `${found}, and this version, which knows ${latest.id}, cannot work with it: use a later version`
}

/** Migrations of one generation change nothing for versions that do not know them. */
const generation = (id: number): number => Math.floor(id / 1_000)

/**
 * Fails with `mismatch` if this version cannot work with tables of the migration `found`. Logs newer tables of the same
 * generation: an old version keeps running during an upgrade.
 */
export const accept = <Mismatch>(
  schema: string,
  found: number,
  latest: Migration,
  mismatch: Mismatch
): Effect.Effect<void, Mismatch> => {
  if (found === latest.id) return Effect.void
  return found > latest.id && generation(found) === generation(latest.id)
    ? Effect.logWarning(
        `The schema ${JSON.stringify(schema)} has migration ${found}, made by a later version; this version knows ${latest.id} and is compatible`
      )
    : Effect.fail(mismatch)
}

/**
 * The check at the start. If the database does not answer or denies the role, it logs a warning, and everything else
 * continues.
 */
export const atStart = <Mismatch, R>(
  schema: string,
  grant: string,
  check: Effect.Effect<void, Mismatch | SqlError, R>
): Effect.Effect<void, Exclude<Mismatch, SqlError>, R> =>
  Effect.catchAll(check, (error) =>
    error instanceof SqlError
      ? Effect.logWarning(
          `Could not check the migrations of schema ${JSON.stringify(schema)}: ${describe(error)}${
            isForbidden(error) ? `. Grant the right with controlpublish migrate ${grant}` : ""
          }`
        )
      : Effect.fail(error as Exclude<Mismatch, SqlError>)
  )

/** The SQL that `run` executes on an empty database. */
export const print = (plan: Plan): string => {
  const body = plan.migrations.map(
    ({ id, name, sql }) =>
      `-- Migration ${id}: ${name}\n${sql}\nINSERT INTO ${qualified(plan)} (migration_id, name) VALUES (${id}, ${Names.literal(name)});`
  )
  return [`${begin};`, prepare(plan).trim(), ...body, "COMMIT;", ""].join("\n\n")
}

/** The newest migration of the database, 0 if it has none. */
export const current = (plan: Plan) =>
  Effect.gen(function* () {
    const sql = (yield* SqlClient.SqlClient).withoutTransforms()
    const [found] = yield* sql.unsafe<{ readonly plain: boolean }>(
      `SELECT relkind ${Names.op("=")} 'r' AND NOT relrowsecurity AS plain FROM pg_catalog.pg_class
        WHERE oid ${Names.op("=")} pg_catalog.to_regclass($1)`,
      [qualified(plan)]
    )
    if (found === undefined) return 0
    // A view or a policy runs functions of its owner with the rights of the reader.
    if (!found.plain) {
      const cause = new Error(`${qualified(plan)} is not a plain table and was not created by a migration`)
      return yield* new SqlError({ cause, message: cause.message })
    }
    const [row] = yield* sql.unsafe<{ readonly id: number }>(
      `SELECT coalesce(pg_catalog.max(migration_id), 0) AS id FROM ${qualified(plan)}`
    )
    return row?.id ?? 0
  })
