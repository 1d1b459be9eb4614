import * as PgClient from "@effect/sql-pg/PgClient"
import { Effect, Layer } from "effect"
import { ControlVersion, Sink } from "../../src/index.js"

/** The feed of {@link layer}: a table that any number of processes share. */
export const createFeed = Effect.flatMap(
  PgClient.PgClient,
  (sql) => sql`CREATE TABLE feed (version bigserial PRIMARY KEY, event_id text NOT NULL UNIQUE, key text NOT NULL,
    publisher text NOT NULL, attempts integer NOT NULL DEFAULT 1)`
)

/** A sink that appends to the table `feed`, one transaction an event, and knows the ids that are there. */
export const layer = (publisher: string): Layer.Layer<Sink.Sink, never, PgClient.PgClient> =>
  Layer.effect(
    Sink.Sink,
    Effect.map(PgClient.PgClient, (sql) =>
      Sink.fromAppend({
        name: "table",
        concurrency: 4,
        append: ({ eventId, orderingKey }) =>
          sql<{ version: string; attempts: number }>`
            INSERT INTO feed (event_id, key, publisher) VALUES (${eventId}, ${orderingKey}, ${publisher})
            ON CONFLICT (event_id) DO UPDATE SET attempts = feed.attempts + 1 RETURNING version, attempts`.pipe(
            Effect.map(([row]) => Sink.published(ControlVersion.make(Number(row!.version)), row!.attempts > 1)),
            Effect.mapError(
              (cause) =>
                new Sink.SinkUnavailable({ sink: "table", reason: "unreachable", message: cause.message, cause })
            )
          )
      })
    )
  )
