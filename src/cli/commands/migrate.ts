/**
 * `controlpublish migrate`: creates or upgrades the outbox, or prints the SQL that does.
 *
 * @since 1.0.0
 */
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Migrations from "../../postgres/Migrations.js"
import * as Database from "../internal/database.js"
import { quote } from "../internal/text.js"
import * as DatabaseSettings from "../../postgres/DatabaseSettings.js"
import * as SettingFlags from "../SettingFlags.js"

const print = Effect.flatMap(DatabaseSettings.schema, (schema) => Console.log(Migrations.print({ schema }).trimEnd()))

const migrate = Effect.gen(function* () {
  const database = yield* DatabaseSettings.database
  const ran = yield* Migrations.run(database).pipe(Effect.provide(Database.layer(database)))
  const { id, name } = Migrations.latest
  yield* Console.log(`Database: ${Database.describe(database)}`)
  yield* Console.log(
    ran.length === 0
      ? `The schema ${quote(database.schema)} is up to date: migration ${id} (${name}).`
      : `Migrated the schema ${quote(database.schema)}: ${ran.map(({ id, name }) => `${id} (${name})`).join(", ")}.`
  )
})

/**
 * @since 1.0.0
 * @category commands
 */
export const command = Command.make(
  "migrate",
  {
    settings: SettingFlags.make(DatabaseSettings.group),
    print: Options.boolean("print").pipe(
      Options.withDescription("Print the SQL for an empty database, and touch no database")
    )
  },
  ({ print: printOnly, settings }) => (printOnly ? print : migrate).pipe(SettingFlags.provide(settings))
).pipe(Command.withDescription("Create the outbox, or bring it up to this version."))
