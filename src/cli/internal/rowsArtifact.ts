/** Rows as an artifact: `{"db": "…", "table": "…", "op": "upsert", "pk": ["id"], "rows": [{…}, …]}`. */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import { CannotApply, make, type Delivered, type Handlers } from "../../fleet/Handlers.js"
import * as Names from "../../postgres/internal/names.js"
import { failure, type CliError } from "./CliError.js"
import { messageOf, quote } from "./text.js"

// A record would copy the row and lose a column named __proto__.
const Row = Schema.Unknown.pipe(
  Schema.filter(
    (row): row is Readonly<Record<string, unknown>> => typeof row === "object" && row !== null && !Array.isArray(row)
  )
)

const Rows = Schema.Struct({
  /** The PostgreSQL schema. */
  db: Schema.NonEmptyString,
  table: Schema.NonEmptyString,
  op: Schema.Literal("upsert", "delete"),
  pk: Schema.NonEmptyArray(Schema.NonEmptyString),
  rows: Schema.Array(Row)
})

type Rows = typeof Rows.Type

const decodeRows = ParseResult.decodeUnknown(Schema.parseJson(Rows), { onExcessProperty: "error" })

const columnList = (names: ReadonlyArray<string>): string => names.map(Names.quote).join(", ")

const invalid = (reason: string) => new CannotApply({ reason: `The artifact is invalid: ${reason}` })

const textOf = (bytes: Uint8Array): Effect.Effect<string, CannotApply> =>
  Effect.try({
    try: () => new TextDecoder("utf-8", { fatal: true }).decode(bytes),
    catch: () => invalid("it is not UTF-8")
  })

const parse = (text: string): Effect.Effect<Rows, CannotApply> =>
  Effect.mapError(decodeRows(text), (issue) => {
    const [first] = ParseResult.ArrayFormatter.formatIssueSync(issue)
    const field = first === undefined || first.path.length === 0 ? "its JSON" : quote(first.path.join("."))
    switch (first?._tag) {
      case "Missing":
        return invalid(`${field} is missing`)
      case "Unexpected":
        return invalid(`${field} is not a known field`)
      default:
        return invalid(`${field} is invalid`)
    }
  })

/** The columns of the rows, which must be the same in each row: an absent one would be set to NULL. */
const columnsOf = ({ pk, rows }: Rows): Effect.Effect<ReadonlyArray<string>, CannotApply> => {
  const columns = Object.keys(rows[0] ?? {})
  const other = rows.findIndex(
    (row) => Object.keys(row).length !== columns.length || columns.some((column) => !Object.hasOwn(row, column))
  )
  const missing = pk.find((column) => !columns.includes(column))
  if (other > 0) return invalid(`"rows.${other}" has other columns than "rows.0"`)
  return missing === undefined ? Effect.succeed(columns) : invalid(`"rows.0" has no ${quote(missing)}, which pk names`)
}

const targetOf = ({ db, table }: Rows): string => `${Names.quote(db)}.${Names.quote(table)}`

/** The rows of the artifact $1. They are read from its text, so that numbers keep all digits. */
const givenOf = (target: string): string =>
  `pg_catalog.json_populate_recordset(NULL::${target}, $1::pg_catalog.json ${Names.op("->")} 'rows')`

/**
 * The equality operator of each key column's type: that of its default index. An unqualified operator would depend on
 * the session's search_path. $1 table, $2 columns.
 */
const equalities = `
  WITH RECURSIVE typed (name, type) AS (
    SELECT attname, atttypid FROM pg_catalog.pg_attribute
      WHERE attrelid ${Names.op("=")} $1::pg_catalog.regclass AND attname ${Names.op("=")} ANY ($2::pg_catalog.name[])
    UNION ALL
    SELECT name, typbasetype FROM typed JOIN pg_catalog.pg_type ON oid ${Names.op("=")} type
      WHERE typtype ${Names.op("=")} 'd'
  )
  SELECT typed.name, nspname AS schema FROM typed
    JOIN pg_catalog.pg_opclass ON opcintype ${Names.op("=")} type AND opcdefault
    JOIN pg_catalog.pg_amop ON amopfamily ${Names.op("=")} opcfamily AND amoplefttype ${Names.op("=")} type
      AND amoprighttype ${Names.op("=")} type AND amopstrategy ${Names.op("=")} 3
    JOIN pg_catalog.pg_am ON pg_am.oid ${Names.op("=")} opcmethod AND amname ${Names.op("=")} 'btree'
    JOIN pg_catalog.pg_operator ON pg_operator.oid ${Names.op("=")} amopopr AND oprname ${Names.op("=")} '='
    JOIN pg_catalog.pg_namespace ON pg_namespace.oid ${Names.op("=")} oprnamespace`

const deletionOf = (rows: Rows) =>
  Effect.gen(function* () {
    const sql = (yield* SqlClient.SqlClient).withoutTransforms()
    const target = targetOf(rows)
    const found = yield* sql.unsafe<{ readonly name: string; readonly schema: string }>(equalities, [target, rows.pk])
    const schemas = new Map(found.map(({ name, schema }) => [name, schema]))
    // Types without their own equality operator, such as varchar and enums, use one of pg_catalog.
    const same = rows.pk.map(
      (column) =>
        `old.${Names.quote(column)} OPERATOR(${Names.quote(schemas.get(column) ?? "pg_catalog")}.=) gone.${Names.quote(column)}`
    )
    return `DELETE FROM ${target} old USING ${givenOf(target)} gone WHERE ${same.join(" AND ")}`
  })

const upsertOf = (rows: Rows, columns: ReadonlyArray<string>): string => {
  const { pk } = rows
  const target = targetOf(rows)
  const others = Arr.difference(columns, pk)
  const action =
    others.length === 0
      ? "NOTHING"
      : `UPDATE SET ${others.map((column) => `${Names.quote(column)} = excluded.${Names.quote(column)}`).join(", ")}`
  // Keys that the admin's database generated keep their values.
  return `INSERT INTO ${target} (${columnList(columns)}) OVERRIDING SYSTEM VALUE SELECT ${columnList(columns)} FROM ${givenOf(target)}
    ON CONFLICT (${columnList(pk)}) DO ${action}`
}

/**
 * PostgreSQL rejects the rows themselves: a duplicate key (21), values that do not fit the columns (22), violated
 * constraints (23). All other errors are the node's: a missing table, a permission, a lost connection.
 */
const refused = (target: string, cause: unknown): CannotApply | CliError => {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : ""
  const message = `${target}: ${messageOf(cause)}`
  return /^2[123]/.test(code) ? new CannotApply({ reason: message }) : failure(message, cause)
}

const applyRows = (
  allowed: ReadonlySet<string>,
  { artifact }: Delivered
): Effect.Effect<void, CannotApply | CliError, SqlClient.SqlClient> =>
  Effect.gen(function* () {
    // Events without an artifact have no rows.
    if (artifact === undefined) return
    const text = yield* textOf(artifact)
    const rows = yield* parse(text)
    const target = `${rows.db}.${rows.table}`
    // Not permanent: the operator can allow the table.
    if (!allowed.has(target)) {
      return yield* failure(`the table ${quote(target)} is not allowed: add it to APPLY_TABLES (--tables)`)
    }
    if (rows.rows.length === 0) return
    const columns = yield* columnsOf(rows)
    const sql = (yield* SqlClient.SqlClient).withoutTransforms()
    yield* (rows.op === "delete" ? deletionOf(rows) : Effect.succeed(upsertOf(rows, columns))).pipe(
      Effect.flatMap((statement) => sql.unsafe(statement, [text])),
      Effect.mapError(({ cause }) => refused(target, cause))
    )
  })

/** Applies every artifact of rows to the tables that are allowed, whatever the type of its event. */
export const handlers = (allowed: ReadonlySet<string>): Handlers<SqlClient.SqlClient> =>
  make([], {}, { otherwise: (delivered) => applyRows(allowed, delivered) })
