/** The database of the commands: the given one, or an embedded one. */
import * as PgClient from "@effect/sql-pg/PgClient"
import type * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { lstat } from "node:fs/promises"
import * as Path from "node:path"
import type { OutboxError } from "../../OutboxStore.js"
import * as Migrations from "../../postgres/Migrations.js"
import * as EmbeddedPostgres from "../EmbeddedPostgres.js"
import { describe as describeUrl, type Database } from "../../postgres/DatabaseSettings.js"
import { failure, type CliError } from "./CliError.js"
import { messageOf, quote } from "./text.js"

/** The directory of the embedded PostgreSQL's data. */
export const directory = ".controlpublish"

export const isEmbedded = (database: Database): boolean => database.url === undefined

/** A description for people, without secrets. */
export const describe = ({ url }: Database): string =>
  url === undefined ? `embedded PostgreSQL in ${Path.resolve(directory)}` : describeUrl(url)

/** Whether the embedded database was ever created. */
export const exists: Effect.Effect<boolean> = Effect.promise(() =>
  lstat(Path.join(directory, "postgres")).then(
    () => true,
    () => false
  )
)

/** The error, and what to do if the outbox is missing: undefined_table, invalid_schema_name, undefined_function. */
export const explain = (database: Database, error: OutboxError | SqlError): CliError => {
  const { cause } = error
  const code = cause instanceof Error && "code" in cause ? cause.code : undefined
  const message = error instanceof SqlError ? messageOf(cause) : messageOf(error)
  return failure(
    code === "42P01" || code === "3F000" ? `${noOutbox(database)} (${message})` : `Database error: ${message}`,
    error
  )
}

export const noOutbox = ({ schema }: Database): string =>
  `the schema ${quote(schema)} has no outbox: run "controlpublish migrate" first`

/**
 * Fails if this version cannot work with the existing outbox. An embedded outbox is created or upgraded by any command;
 * every other one is its owner's to migrate.
 */
export const checked = (
  database: Database
): Layer.Layer<never, CliError | Migrations.MigrationFailed, SqlClient.SqlClient> =>
  isEmbedded(database)
    ? Migrations.layer(database)
    : Layer.effectDiscard(
        Effect.catchTags(Migrations.check(database), {
          SchemaMismatch: (error) => failure(error.message, error),
          SequenceBehind: (error) => failure(error.message, error),
          SqlError: (error) => explain(database, error)
        })
      )

const warn = ({ message }: Migrations.SequenceBehind) => Console.error(`controlpublish: warning: ${message}`)

/** Warns of what stops appends and pumps and not who only looks: somebody looks to see what is wrong. */
export const warnOfSequence = (database: Database): Effect.Effect<void, never, SqlClient.SqlClient> =>
  Migrations.check(database).pipe(
    Effect.catchTag("SequenceBehind", warn),
    // The look itself tells of them.
    Effect.catchTags({ SchemaMismatch: () => Effect.void, SqlError: () => Effect.void })
  )

/** As {@link checked}, for commands that change nothing. */
export const checkedToLook = (
  database: Database
): Layer.Layer<never, CliError | Migrations.MigrationFailed, SqlClient.SqlClient> =>
  Layer.catchAll(checked(database), (error) =>
    error.cause instanceof Migrations.SequenceBehind ? Layer.effectDiscard(warn(error.cause)) : Layer.fail(error)
  )

/** Nothing sets where the embedded one is kept, but what to do instead can be told. */
const started = Effect.mapError(EmbeddedPostgres.start({ directory }), (error) =>
  error.message.startsWith("Cannot use the directory")
    ? failure(`${error.message}: run it in a directory where ${directory} is writable, or set DATABASE_URL`, error)
    : error
)

/** Connects once, so that an unusable database is reported at once. */
export const layer = (
  database: Database
): Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, CliError | EmbeddedPostgres.EmbeddedPostgresError> =>
  Layer.unwrapScoped(
    Effect.map(
      database.url === undefined ? Effect.map(started, ({ url }) => url) : Effect.succeed(database.url),
      (url) =>
        PgClient.layer({
          url,
          applicationName: "controlpublish",
          connectTimeout: "5 seconds",
          // One connection for a transaction, one to cancel it.
          maxConnections: 2
        }).pipe(
          Layer.catchAll((error) =>
            Layer.fail(
              failure(
                `Cannot connect to ${describe(database)}: ${messageOf(error instanceof SqlError ? error.cause : error)}`,
                error
              )
            )
          )
        )
    )
  )
