import * as PgClient from "@effect/sql-pg/PgClient"
import { Effect, Redacted } from "effect"
import { FleetMigrations } from "../../../src/postgres/index.js"
import { Names } from "./outbox.js"
import { withClient } from "./outbox.js"

/** The tables of a node in a schema of their own, and one that events change. */
export const createNode = async (databaseUrl: string, schema: string): Promise<void> => {
  await Effect.runPromise(
    FleetMigrations.run({ schema }).pipe(
      Effect.provide(PgClient.layer({ url: Redacted.make(databaseUrl) })),
      Effect.scoped
    )
  )
  await withClient(databaseUrl, (client) =>
    client.query(
      `CREATE TABLE ${Names.quote(schema)}.tenants (id text PRIMARY KEY, last_event text NOT NULL, changes int NOT NULL)`
    )
  )
}

/** What an event changes: its tenant. */
export const applySql = (schema: string): string => `
  INSERT INTO ${Names.quote(schema)}.tenants (id, last_event, changes) VALUES ($1, $2, 1)
  ON CONFLICT (id) DO UPDATE SET last_event = excluded.last_event, changes = tenants.changes + 1`

/** The same for many events in one statement: the last event of a tenant counts, and all of them are counted. */
export const applyAllSql = (schema: string): string => `
  INSERT INTO ${Names.quote(schema)}.tenants (id, last_event, changes)
  SELECT id, (array_agg(event ORDER BY place DESC))[1], count(*)
  FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS changed (id, event, place) GROUP BY id
  ON CONFLICT (id) DO UPDATE SET last_event = excluded.last_event, changes = tenants.changes + excluded.changes`
