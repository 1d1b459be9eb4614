import * as PgClient from "@effect/sql-pg/PgClient"
import { Effect, Layer } from "effect"
import { InsertRaw, outboxSuite } from "../support/outboxSuite.js"
import { layerClient, layerOutbox } from "../support/postgres.js"

// A name that breaks every statement that forgets to quote it.
const schema = `An "odd" schema.name's`

outboxSuite("Outbox in PostgreSQL", () =>
  Layer.effect(
    InsertRaw,
    Effect.map(PgClient.PgClient, (sql) => ({
      // As somebody would who has only psql: the database does the rest.
      insert: ({ eventId, payload }) =>
        Effect.orDie(
          Effect.asVoid(
            sql`INSERT INTO ${sql.literal(`"${schema.replaceAll('"', '""')}"`)}.control_events_outbox
              (event_id, event_type, payload_json) VALUES (${eventId}, 'inserted', ${payload}::json)`
          )
        )
    }))
  ).pipe(Layer.provideMerge(layerOutbox(schema)), Layer.provide(layerClient))
)
