/**
 * @since 1.0.0
 */
export * as Migrations from "./Migrations.js"
export * as Postgres from "./Postgres.js"
export * as PostgresOutboxAdmin from "./PostgresOutboxAdmin.js"
