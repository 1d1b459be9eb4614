import * as PgClient from "@effect/sql-pg/PgClient"
import type { SqlClient } from "@effect/sql/SqlClient"
import { Context, Effect, Layer, Redacted } from "effect"
import { randomBytes } from "node:crypto"
import * as Pg from "pg"
import { inject } from "vitest"
import { Migrations, Postgres } from "../../src/postgres/index.js"

/** A database that lives as long as the layer. */
export class TestDatabase extends Context.Tag("test/TestDatabase")<
  TestDatabase,
  { readonly url: Redacted.Redacted; readonly name: string }
>() {}

/** Runs a statement in the server's own database. */
export const onServer = (statement: string) =>
  Effect.promise(async () => {
    const client = new Pg.Client({ connectionString: inject("databaseUrl") })
    await client.connect()
    await client.query(statement)
    await client.end()
  })

export const layerDatabase = Layer.scoped(
  TestDatabase,
  Effect.acquireRelease(
    Effect.gen(function* () {
      const name = `controlpublish_test_${randomBytes(6).toString("hex")}`
      yield* onServer(`CREATE DATABASE ${name}`)
      const url = new URL(inject("databaseUrl"))
      url.pathname = `/${name}`
      return { name, url: Redacted.make(url.href) }
    }),
    ({ name }) => onServer(`DROP DATABASE ${name} WITH (FORCE)`)
  )
)

/** A client for a database of its own. */
export const layerClient: Layer.Layer<PgClient.PgClient | TestDatabase | SqlClient> = Layer.unwrapEffect(
  Effect.map(TestDatabase, ({ url }) => Layer.orDie(PgClient.layer({ url, maxConnections: 40 })))
).pipe(Layer.provideMerge(layerDatabase))

/** The tables in a schema, and the ports over them. */
export const layerOutbox = (schema: string) =>
  Layer.orDie(Postgres.layer({ schema }).pipe(Layer.provideMerge(Migrations.layer({ schema }))))

/** Statements from outside, each on a connection of its own until the scope ends, as psql would run them. */
export const rawClient = Effect.flatMap(TestDatabase, ({ url }) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const client = new Pg.Client({ connectionString: Redacted.value(url) })
      client.on("error", () => {})
      await client.connect()
      return client
    }),
    (client) => Effect.promise(() => client.end())
  )
)
