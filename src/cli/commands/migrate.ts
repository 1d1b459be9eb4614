/**
 * `controlpublish migrate`: creates or upgrades the outbox, or a node's tables, and grants rights on them; or prints the
 * SQL that does.
 *
 * @since 0.1.0
 */
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as FleetMigrations from "../../postgres/FleetMigrations.js"
import * as Grants from "../../postgres/Grants.js"
import * as Migrations from "../../postgres/Migrations.js"
import * as PayloadLimit from "../../postgres/PayloadLimit.js"
import { usage } from "../internal/CliError.js"
import * as Database from "../internal/database.js"
import { quote } from "../internal/text.js"
import * as DatabaseSettings from "../../postgres/DatabaseSettings.js"
import * as SettingFlags from "../SettingFlags.js"

const role = (name: string, help: string) =>
  Options.text(`grant-${name}`).pipe(
    Options.withPseudoName("role"),
    Options.withDescription(`A role that ${help}; repeatable`),
    Options.repeated
  )

const grants = {
  append: role("append", "appends events by SQL or in a program"),
  pump: role("pump", "publishes, such as the role of serve"),
  operate: role("operate", "redrives, parks, discards and prunes events"),
  view: role("view", "reads events, attempts and the audit log"),
  node: role("node", "applies events; with --node")
}

type Given = { readonly [Name in keyof typeof grants]: ReadonlyArray<string> }

const outboxRoles = ["append", "pump", "operate", "view"] as const

interface Flags extends Given {
  readonly isNode: boolean
  readonly maxPayloadBytes: Option.Option<number>
}

const check = ({ isNode, maxPayloadBytes, ...given }: Flags) =>
  Effect.gen(function* () {
    const blank = Object.entries(given).find(([, roles]) => roles.some((role) => role.trim() === ""))
    if (blank !== undefined) return yield* usage(`--grant-${blank[0]}: got an empty text, valid is the name of a role`)
    if (!isNode && given.node.length > 0) {
      return yield* usage("--grant-node requires --node: the tables of a node are not the outbox's")
    }
    const misplaced = outboxRoles.find((name) => given[name].length > 0)
    if (isNode && misplaced !== undefined) {
      return yield* usage(`--grant-${misplaced} is for the outbox, but --node is for the tables of a node`)
    }
    if (isNode && Option.isSome(maxPayloadBytes)) {
      return yield* usage("--max-payload-bytes is for the outbox, but --node is for the tables of a node")
    }
    const isValid = (bytes: number) => bytes >= 1 && bytes <= PayloadLimit.largestBytes
    if (Option.exists(maxPayloadBytes, (bytes) => !isValid(bytes))) {
      return yield* usage(`--max-payload-bytes: valid is an integer from 1 to ${PayloadLimit.largestBytes}`)
    }
  })

/** The given roles, for people. */
const granted = (given: Given): ReadonlyArray<string> =>
  Object.entries(given).flatMap(([name, roles]) => roles.map((role) => `${quote(role)} (${name})`))

const print = ({ isNode, maxPayloadBytes, ...given }: Flags) =>
  Effect.gen(function* () {
    const schema = yield* DatabaseSettings.schema
    const parts = isNode
      ? [FleetMigrations.print({ schema })]
      : [
          Migrations.print({ schema }),
          ...Option.toArray(Option.map(maxPayloadBytes, (bytes) => PayloadLimit.print(bytes, { schema })))
        ]
    const rights = isNode ? Grants.printNode({ schema, node: given.node }) : Grants.print({ schema, ...given })
    const printed = granted(given).length === 0 ? parts : [...parts, rights]
    yield* Console.log(printed.map((part) => part.trim()).join("\n\n"))
  })

const migrate = ({ isNode, maxPayloadBytes, ...given }: Flags) =>
  Effect.gen(function* () {
    const database = yield* DatabaseSettings.database
    const { schema } = database
    const { latest, run } = isNode ? FleetMigrations : Migrations
    yield* Effect.gen(function* () {
      const ran = yield* run({ schema })
      yield* Console.log(`Database: ${Database.describe(database)}`)
      yield* Console.log(
        ran.length === 0
          ? `The schema ${quote(schema)} is up to date: migration ${latest.id} (${latest.name}).`
          : `Migrated the schema ${quote(schema)}: ${ran.map(({ id, name }) => `${id} (${name})`).join(", ")}.`
      )
      if (Option.isSome(maxPayloadBytes)) {
        yield* PayloadLimit.set(maxPayloadBytes.value, { schema })
        yield* Console.log(`The largest payload has ${maxPayloadBytes.value} bytes.`)
      }
      if (granted(given).length > 0) {
        yield* isNode ? Grants.runNode({ schema, node: given.node }) : Grants.run({ schema, ...given })
        yield* Console.log(`Granted rights to ${granted(given).join(", ")}.`)
      }
    }).pipe(Effect.provide(Database.layer(database)))
  })

/**
 * Creates or upgrades the tables, and grants rights on them.
 *
 * @since 0.1.0
 * @category commands
 */
export const command = Command.make(
  "migrate",
  {
    settings: SettingFlags.make(DatabaseSettings.group),
    print: Options.boolean("print").pipe(
      Options.withDescription("Print the SQL for an empty database instead of running it")
    ),
    isNode: Options.boolean("node").pipe(
      Options.withDescription("Create or upgrade the tables of a node instead of the outbox")
    ),
    grants: Options.all(grants),
    maxPayloadBytes: Options.integer("max-payload-bytes").pipe(
      Options.withDescription(
        `The largest payload that the outbox accepts, in bytes (initially ${PayloadLimit.defaultBytes})`
      ),
      Options.optional
    )
  },
  ({ grants, isNode, maxPayloadBytes, print: printOnly, settings }) => {
    const flags = { ...grants, isNode, maxPayloadBytes }
    return Effect.zipRight(check(flags), printOnly ? print(flags) : migrate(flags)).pipe(SettingFlags.provide(settings))
  }
).pipe(Command.withDescription("Create the outbox or upgrade it to this version, and grant rights on it to roles."))
