/** Rows as an artifact: `{"db": "…", "table": "…", "op": "upsert", "pk": ["id"], "rows": [{…}, …]}`. */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import { CannotApply, make, type Delivered, type Handlers } from "../../fleet/Handlers.js"
import { failure, type CliError } from "./CliError.js"
import { quote } from "./text.js"

const Rows = Schema.Struct({
  /** The PostgreSQL schema. */
  db: Schema.NonEmptyString,
  table: Schema.NonEmptyString,
  op: Schema.Literal("upsert", "delete"),
  pk: Schema.NonEmptyArray(Schema.NonEmptyString),
  rows: Schema.Array(Schema.Record({ key: Schema.String, value: Schema.Unknown }))
})

type Rows = typeof Rows.Type

const decodeRows = ParseResult.decodeUnknown(Schema.parseJson(Rows), { onExcessProperty: "error" })

const identifier = (name: string): string => `"${name.replaceAll('"', '""')}"`

const list = (names: ReadonlyArray<string>, each: (name: string) => string = identifier): string =>
  names.map(each).join(", ")

const invalid = (reason: string) => new CannotApply({ reason: `The artifact holds no rows to apply: ${reason}` })

const parse = (bytes: Uint8Array): Effect.Effect<Rows, CannotApply> =>
  decodeRows(new TextDecoder().decode(bytes)).pipe(
    Effect.mapError((issue) => {
      const [first] = ParseResult.ArrayFormatter.formatIssueSync(issue)
      const field = first === undefined || first.path.length === 0 ? "it" : first.path.join(".")
      return invalid(`${field} ${first?._tag === "Missing" ? "is missing" : "is not what it has to be"}`)
    })
  )

/** The columns of the rows, which have to be the same in each: one that is absent would be set to NULL. */
const columnsOf = ({ pk, rows }: Rows): Effect.Effect<ReadonlyArray<string>, CannotApply> => {
  const columns = Object.keys(rows[0] ?? {})
  const other = rows.findIndex(
    (row) => Object.keys(row).length !== columns.length || columns.some((column) => !(column in row))
  )
  const missing = pk.find((column) => !columns.includes(column))
  if (other > 0) return invalid(`rows.${other} has other columns than rows.0`)
  return missing === undefined ? Effect.succeed(columns) : invalid(`rows.0 has no ${quote(missing)}, which pk names`)
}

const statementOf = ({ db, op, pk, table }: Rows, columns: ReadonlyArray<string>): string => {
  const target = `${identifier(db)}.${identifier(table)}`
  const given = `json_populate_recordset(NULL::${target}, $1::json)`
  if (op === "delete") {
    return `DELETE FROM ${target} old USING ${given} gone
      WHERE ${pk.map((column) => `old.${identifier(column)} = gone.${identifier(column)}`).join(" AND ")}`
  }
  const others = Arr.difference(columns, pk)
  const action =
    others.length === 0
      ? "NOTHING"
      : `UPDATE SET ${list(others, (column) => `${identifier(column)} = excluded.${identifier(column)}`)}`
  return `INSERT INTO ${target} (${list(columns)}) SELECT ${list(columns)} FROM ${given}
    ON CONFLICT (${list(pk)}) DO ${action}`
}

const applyRows = (
  allowed: ReadonlySet<string>,
  { artifact }: Delivered
): Effect.Effect<void, CannotApply | CliError | SqlError, SqlClient.SqlClient> =>
  Effect.gen(function* () {
    // Events without one are none of ours.
    if (artifact === undefined) return
    const rows = yield* parse(artifact)
    const target = `${rows.db}.${rows.table}`
    // Not for ever: who runs the node can allow it.
    if (!allowed.has(target)) {
      return yield* failure(`the table ${quote(target)} may not be changed: add it to APPLY_TABLES (--tables)`)
    }
    if (rows.rows.length === 0) return
    const statement = statementOf(rows, yield* columnsOf(rows))
    const sql = (yield* SqlClient.SqlClient).withoutTransforms()
    yield* sql.unsafe(statement, [JSON.stringify(rows.rows)])
  })

/** Applies every artifact of rows to the tables that are allowed, whatever the type of its event. */
export const handlers = (allowed: ReadonlySet<string>): Handlers<SqlClient.SqlClient> =>
  make([], {}, { otherwise: (delivered) => applyRows(allowed, delivered) })
