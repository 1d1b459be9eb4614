/**
 * The outbox for applications that do not use Effect: it appends in transactions of `pg`, Drizzle, Kysely, Knex and Prisma.
 *
 * @since 0.1.0
 */
export { makeOutbox, type PromiseOutbox } from "./outbox.js"
export { fromDrizzle, fromKnex, fromKysely, fromPg, fromPrisma, type Transaction } from "./transactions.js"
