/**
 * Grants each role the minimum rights for its part of the product.
 *
 * @since 0.1.0
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Names from "./internal/names.js"
import * as Rights from "./internal/rights.js"
import { begin, describe } from "./internal/migrator.js"
import { withTransaction } from "./internal/transaction.js"

/**
 * The roles of an outbox, each with any number of names. A role may be in several.
 *
 * @since 0.1.0
 * @category models
 */
export interface Roles {
  /** Appends by SQL or `Outbox.append`. */
  readonly append?: ReadonlyArray<string> | undefined
  /** Publishes and runs the retention. Includes the rights of `operate`. */
  readonly pump?: ReadonlyArray<string> | undefined
  /** Redrives, parks, discards, erases and prunes events. Includes the rights of `view`. */
  readonly operate?: ReadonlyArray<string> | undefined
  /** Reads events with their payloads, attempts, the audit log and counts. */
  readonly view?: ReadonlyArray<string> | undefined
}

/**
 * The roles to grant rights on an outbox, and its schema.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends Roles {
  /** The PostgreSQL schema that holds the tables. Default `public`. */
  readonly schema?: string | undefined
}

/**
 * The roles to grant the rights of a node, and its schema.
 *
 * @since 0.1.0
 * @category models
 */
export interface NodeOptions {
  /** The PostgreSQL schema that holds `applied_events`. Default `public`. */
  readonly schema?: string | undefined
  /** Roles that apply events. Rights on the tables that the handlers change are not included. */
  readonly node: ReadonlyArray<string>
}

/**
 * No rights were granted: a role or a table is missing, or another role owns the tables.
 *
 * @since 0.1.0
 * @category errors
 */
export class GrantFailed extends Schema.TaggedError<GrantFailed>("controlpublish/GrantFailed")("GrantFailed", {
  schema: Schema.String,
  message: Schema.String,
  cause: Schema.Defect
}) {}

const outboxSql = ({ append = [], operate = [], pump = [], schema = "public", view = [] }: Options): string =>
  Rights.outbox(Names.make(schema), { append, operate, pump, view })

const nodeSql = ({ node, schema = "public" }: NodeOptions): string => Rights.node(schema, node)

const grant = (schema: string, sql: string) =>
  Effect.gen(function* () {
    const client = (yield* SqlClient.SqlClient).withoutTransforms()
    const failed = (cause: unknown) =>
      new GrantFailed({
        schema,
        message: `Could not grant rights in schema ${JSON.stringify(schema)}: ${describe(cause)}`,
        cause
      })
    const inTransaction = withTransaction(client, () => failed, begin)
    yield* client.unsafe(sql).pipe(Effect.mapError(failed), inTransaction)
  })

/**
 * Grants the rights, all or none. Only the owner can grant: connect as the role that owns the tables, or as a member of
 * it. Existing rights stay.
 *
 * @example
 * import { Effect } from "effect"
 * import { Grants } from "controlpublish/postgres"
 *
 * export const granted = Grants.run({ append: ["app"], pump: ["controlpublish"], view: ["grafana"] })
 *
 * @since 0.1.0
 * @category constructors
 */
export const run = (options: Options): Effect.Effect<void, GrantFailed, SqlClient.SqlClient> =>
  grant(options.schema ?? "public", outboxSql(options))

/**
 * The SQL that `run` executes.
 *
 * @since 0.1.0
 * @category constructors
 */
export const print = (options: Options): string => Rights.inTransaction(outboxSql(options))

/**
 * Grants the rights of a node's roles, all or none.
 *
 * @since 0.1.0
 * @category constructors
 */
export const runNode = (options: NodeOptions): Effect.Effect<void, GrantFailed, SqlClient.SqlClient> =>
  grant(options.schema ?? "public", nodeSql(options))

/**
 * The SQL that `runNode` executes.
 *
 * @since 0.1.0
 * @category constructors
 */
export const printNode = (options: NodeOptions): string => Rights.inTransaction(nodeSql(options))
