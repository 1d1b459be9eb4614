/**
 * The settings of the database.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Redacted from "effect/Redacted"
import { quote } from "../internal/printable.js"
import * as Setting from "../Setting.js"
import * as DatabaseUrl from "./internal/databaseUrl.js"

/**
 * A database and a schema in it, as configured.
 *
 * @since 0.1.0
 * @category models
 */
export interface Database {
  /** Absent if no database is configured. */
  readonly url: Redacted.Redacted | undefined
  /** For the connection that listens for appends, if `url` leads through a pooler. */
  readonly directUrl?: Redacted.Redacted | undefined
  /** The PostgreSQL schema that holds the tables of this package. */
  readonly schema: string
}

const databaseUrl = Setting.make({
  env: "DATABASE_URL",
  flag: "database-url",
  secret: true,
  description: "The PostgreSQL database, postgres://user:password@host:port/database",
  defaultText: "an embedded PostgreSQL, its data in .controlpublish/",
  parse: DatabaseUrl.parse
})

const databaseDirectUrl = Setting.make({
  env: "DATABASE_DIRECT_URL",
  flag: "database-direct-url",
  secret: true,
  description: "A URL past the pooler for the connection that listens for appends, if DATABASE_URL leads through one",
  defaultText: "DATABASE_URL",
  parse: DatabaseUrl.parse
})

const databaseSchema = Setting.make({
  env: "DATABASE_SCHEMA",
  flag: "database-schema",
  description: "The PostgreSQL schema that holds the tables of this package; migrations create it",
  default: "public",
  parse: (text) =>
    Buffer.byteLength(text) <= 63
      ? Either.right(text)
      : Either.left(`got ${quote(text)}, valid is a name of at most 63 bytes`)
})

/**
 * The settings of the database.
 *
 * @since 0.1.0
 * @category declarations
 */
export const group: Setting.Group = { title: "Database", settings: [databaseUrl, databaseDirectUrl, databaseSchema] }

/**
 * Reads the schema alone, for commands that need no database.
 *
 * @since 0.1.0
 * @category reading
 */
export const schema: Effect.Effect<string, Setting.InvalidSetting> = Setting.read(databaseSchema)

/**
 * Reads the settings of the database.
 *
 * @since 0.1.0
 * @category reading
 */
export const database: Effect.Effect<Database, Setting.InvalidSetting> = Effect.all({
  url: Setting.read(databaseUrl),
  directUrl: Setting.read(databaseDirectUrl),
  schema
})

/**
 * Describes the target of a URL with the driver's defaults filled in and without the password.
 *
 * @since 0.1.0
 * @category reading
 */
export const describe: (url: Redacted.Redacted) => string = DatabaseUrl.describe
