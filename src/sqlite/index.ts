/**
 * A node's applied events in SQLite: a node that needs no database server.
 *
 * @since 0.1.0
 */
export * as SqliteAppliedEvents from "./SqliteAppliedEvents.js"
export * as SqliteMigrations from "./SqliteMigrations.js"
