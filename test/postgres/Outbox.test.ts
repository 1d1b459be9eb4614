import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { Outbox } from "../../src/index.js"
import { InsertRaw, outboxSuite } from "../support/outboxSuite.js"
import { layerClient, layerOutbox } from "../support/postgres.js"

// A name that breaks every statement that forgets to quote it.
const schema = `An "odd" $$schema$$.name's`

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

describe("Outbox.withTransaction in PostgreSQL", () => {
  const layer = Outbox.layer.pipe(Layer.provideMerge(layerOutbox("public")), Layer.provideMerge(layerClient))

  it.effect("passes the effect's own errors as they are, those of the database too", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const outbox = yield* Outbox.Outbox
      const own = yield* Effect.flip(outbox.withTransaction(sql`SELECT no_such_column`))
      assert.strictEqual(own._tag, "SqlError")
    }).pipe(Effect.provide(layer))
  )

  it.effect("fails with an OutboxError when it cannot commit", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const outbox = yield* Outbox.Outbox
      yield* sql`CREATE TABLE parent (id integer PRIMARY KEY)`
      yield* sql`CREATE TABLE child (id integer REFERENCES parent DEFERRABLE INITIALLY DEFERRED)`
      const refused = yield* Effect.flip(
        outbox.withTransaction(Effect.zipRight(sql`INSERT INTO child VALUES (1)`, outbox.append({ type: "x" })))
      )
      assert.deepInclude({ ...refused }, { _tag: "OutboxError", retryable: false })
      assert.match(refused.message, /^Could not end the transaction: .*foreign key constraint.* \(23503\)$/)
      assert.deepStrictEqual(yield* sql`SELECT FROM control_events_outbox`, [])
    }).pipe(Effect.provide(layer))
  )

  it.effect("fails with an OutboxError that says a retry helps when the connection is lost", () =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      const outbox = yield* Outbox.Outbox
      const lost = yield* Effect.flip(
        outbox.withTransaction(
          Effect.zipRight(
            Effect.ignore(sql`SELECT pg_terminate_backend(pg_backend_pid())`),
            outbox.append({ type: "x" })
          )
        )
      )
      assert.deepInclude({ ...lost }, { _tag: "OutboxError", retryable: true })
    }).pipe(Effect.provide(layer))
  )
})
