/**
 * Transactions of the libraries that applications use for PostgreSQL, as an outbox takes them.
 *
 * The types name only what is called, so none of the libraries is needed.
 *
 * @since 0.1.0
 */

/**
 * A transaction that the application has begun and will end.
 *
 * @since 0.1.0
 * @category models
 */
export interface Transaction {
  /**
   * Runs one statement in the transaction and returns its rows. The statement has `$1` at most once, and a string for
   * it.
   */
  readonly query: (text: string, values: ReadonlyArray<string>) => Promise<ReadonlyArray<unknown>>
}

/**
 * Takes a client of `pg` on which the application ran `BEGIN`. A pool does not do: each of its queries can use another
 * connection.
 *
 * @example
 * import { fromPg, makeOutbox } from "controlpublish/promise"
 * import type { Client } from "pg"
 *
 * const outbox = makeOutbox()
 *
 * export const createTenant = async (client: Client, id: string) => {
 *   await client.query("BEGIN")
 *   try {
 *     await client.query("INSERT INTO tenants (id) VALUES ($1)", [id])
 *     await outbox.append(fromPg(client), { type: "tenant.created", tenant_id: id })
 *     await client.query("COMMIT")
 *   } catch (error) {
 *     await client.query("ROLLBACK")
 *     throw error
 *   }
 * }
 *
 * @since 0.1.0
 * @category adapters
 */
export const fromPg = (client: {
  readonly query: (text: string, values: Array<unknown>) => Promise<{ readonly rows: ReadonlyArray<unknown> }>
}): Transaction => ({
  query: async (text, values) => (await client.query(text, [...values])).rows
})

/**
 * Takes a transaction of Kysely: the `trx` of `db.transaction().execute`.
 *
 * @since 0.1.0
 * @category adapters
 */
export const fromKysely = (trx: {
  readonly executeQuery: (query: {
    readonly sql: string
    readonly parameters: ReadonlyArray<unknown>
    readonly query: {
      readonly kind: "RawNode"
      readonly sqlFragments: ReadonlyArray<string>
      readonly parameters: ReadonlyArray<never>
    }
    readonly queryId: { readonly queryId: string }
  }) => Promise<{ readonly rows: ReadonlyArray<unknown> }>
}): Transaction => {
  let count = 0
  return {
    query: async (text, values) => {
      const { rows } = await trx.executeQuery({
        sql: text,
        parameters: values,
        query: { kind: "RawNode", sqlFragments: [text], parameters: [] },
        queryId: { queryId: `controlpublish-${count++}` }
      })
      return rows
    }
  }
}

/**
 * Takes a transaction of Knex: the `trx` of `knex.transaction`.
 *
 * @since 0.1.0
 * @category adapters
 */
export const fromKnex = (trx: {
  readonly raw: (text: string, values: ReadonlyArray<string>) => PromiseLike<unknown>
}): Transaction => ({
  query: async (text, values) => ((await trx.raw(text.replace("$1", "?"), values)) as { rows: Array<unknown> }).rows
})

/**
 * Takes a transaction of Drizzle, the `tx` of `db.transaction`, and Drizzle's `sql`. For `drizzle-orm/node-postgres` and
 * `drizzle-orm/postgres-js`.
 *
 * @since 0.1.0
 * @category adapters
 */
export const fromDrizzle = <SQL>(
  tx: { readonly execute: (query: SQL) => PromiseLike<unknown> },
  sql: (strings: TemplateStringsArray, ...values: Array<unknown>) => SQL
): Transaction => ({
  query: async (text, values) => {
    const parts = text.split("$1")
    const result = await tx.execute(sql(Object.assign(parts, { raw: parts }), ...values))
    return Array.isArray(result) ? result : (result as { rows: ReadonlyArray<unknown> }).rows
  }
})

/**
 * Takes an interactive transaction of Prisma: the `tx` of `prisma.$transaction(async (tx) => …)`.
 *
 * @since 0.1.0
 * @category adapters
 */
export const fromPrisma = (tx: {
  readonly $queryRawUnsafe: (text: string, ...values: Array<unknown>) => PromiseLike<unknown>
  readonly $executeRawUnsafe: (text: string, ...values: Array<unknown>) => PromiseLike<number>
}): Transaction => ({
  query: async (text, values) => {
    if (values.length > 0) return (await tx.$queryRawUnsafe(text, ...values)) as ReadonlyArray<unknown>
    await tx.$executeRawUnsafe(text)
    return []
  }
})
