import { Effect, Redacted } from "effect"
import { randomBytes } from "node:crypto"
import * as Pg from "pg"
import { onServer, TestDatabase } from "./postgres.js"

/** One connection for statements of a role, until the scope ends. */
export const connectTo = (url: string, config: Pg.ClientConfig = {}) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const client = new Pg.Client({ connectionString: url, ...config })
      client.on("error", () => {})
      await client.connect()
      return client
    }),
    (client) => Effect.promise(() => client.end())
  )

/** For sessions of tests where the database has defaults that no test could stand. */
export const sane = {
  options:
    "-c search_path=public -c default_transaction_read_only=off -c statement_timeout=0 -c lock_timeout=0 -c DateStyle=ISO"
}

/** Runs statements as the tests' own role, which may do everything. */
export const asOwner = (statements: string) =>
  Effect.flatMap(TestDatabase, ({ url }) =>
    Effect.scoped(
      Effect.flatMap(connectTo(Redacted.value(url), sane), (client) => Effect.promise(() => client.query(statements)))
    )
  )

/** A login without any right, for the length of the scope. Answers its name and the database's URL as that role. */
export const makeRole = (kind: string) =>
  Effect.gen(function* () {
    const { url } = yield* TestDatabase
    const name = `test_${kind}_${randomBytes(4).toString("hex")}`
    // Roles are the server's: this one goes when the database is gone, and its rights with it.
    yield* Effect.acquireRelease(onServer(`CREATE ROLE ${name} LOGIN PASSWORD 'secret' NOSUPERUSER`), () =>
      onServer(`DROP ROLE ${name}`)
    )
    const own = new URL(Redacted.value(url))
    own.username = name
    own.password = "secret"
    return { name, url: own.href }
  })

/** What a statement fails with, as `code message`; `undefined` where it succeeds. */
export const failureOf = (client: Pg.Client, text: string, values: ReadonlyArray<unknown> = []) =>
  Effect.promise(() =>
    client.query(text, values as Array<unknown>).then(
      () => undefined,
      (error: unknown) => (error instanceof Pg.DatabaseError ? `${error.code} ${error.message}` : String(error))
    )
  )
