/**
 * The outbox, its administration, and a node's applied events in PostgreSQL.
 *
 * @since 0.1.0
 */
export * as DatabaseSettings from "./DatabaseSettings.js"
export * as FleetMigrations from "./FleetMigrations.js"
export * as Grants from "./Grants.js"
export * as Migrations from "./Migrations.js"
export * as PayloadLimit from "./PayloadLimit.js"
export * as Postgres from "./Postgres.js"
export * as PostgresAppliedEvents from "./PostgresAppliedEvents.js"
export * as PostgresArtifacts from "./PostgresArtifacts.js"
export * as PostgresOutboxAdmin from "./PostgresOutboxAdmin.js"
export * as PostgresSnapshot from "./PostgresSnapshot.js"
