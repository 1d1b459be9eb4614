/**
 * `controlpublish status`: what the outbox holds.
 *
 * @since 1.0.0
 */
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Clock from "effect/Clock"
import * as Console from "effect/Console"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { OutboxStore, type Backlog, type Count, type ParkedEvent } from "../../OutboxStore.js"
import * as Migrations from "../../postgres/Migrations.js"
import * as Postgres from "../../postgres/Postgres.js"
import { failure } from "../internal/CliError.js"
import * as Database from "../internal/database.js"
import { oneLine, quote } from "../internal/text.js"
import * as ServiceConfig from "../ServiceConfig.js"

/** Counts go no further than this, so that a status costs the same whatever the backlog. */
const countLimit = 100_000

const parkedLimit = 5

interface Status {
  readonly database: string
  readonly schema: string
  readonly migration: { readonly current: number; readonly latest: number }
  /** Absent where there is no outbox. */
  readonly backlog: (Backlog & { readonly oldestPendingAgeMillis: number | undefined }) | undefined
  /** The oldest of them. */
  readonly parked: ReadonlyArray<ParkedEvent>
}

const read = (database: ServiceConfig.Database) =>
  Effect.gen(function* () {
    const current = yield* Migrations.current(database)
    const known = {
      database: Database.describe(database),
      schema: database.schema,
      migration: { current, latest: Migrations.latest.id }
    }
    if (current === 0) return { ...known, backlog: undefined, parked: [] } satisfies Status
    return yield* Effect.gen(function* () {
      const store = yield* OutboxStore
      const backlog = yield* store.backlog({ limit: countLimit })
      const parked = yield* store.parked({ limit: parkedLimit })
      const { oldestPendingAt } = backlog
      const now = yield* Clock.currentTimeMillis
      const oldestPendingAgeMillis =
        oldestPendingAt === undefined ? undefined : Math.max(Math.round(now - oldestPendingAt), 0)
      return { ...known, backlog: { ...backlog, oldestPendingAgeMillis }, parked } satisfies Status
    }).pipe(Effect.provide(Postgres.layer(database)))
  }).pipe(
    Effect.catchTags({
      OutboxError: (error) => Database.explain(database, error),
      SqlError: (error) => Database.explain(database, error)
    }),
    Effect.provide(Database.layer(database))
  )

const showCount = ({ exact, value }: Count): string => (exact ? String(value) : `at least ${value}`)

const showMigration = ({ current, latest }: Status["migration"]): string => {
  if (current === 0) return `none: run "controlpublish migrate"`
  if (current < latest) return `${current}, this version needs ${latest}: run "controlpublish migrate"`
  return current > latest
    ? `${current}, made by a newer version than this, which knows ${latest}`
    : `${current} (latest)`
}

const showAge = (millis: number | undefined): string =>
  millis === undefined ? "" : `, the oldest for ${Duration.format(Duration.seconds(Math.floor(millis / 1000)))}`

const show = ({ backlog, database, migration, parked, schema }: Status): string => {
  const lines = [
    ["database", database],
    ["schema", quote(schema)],
    ["migration", showMigration(migration)],
    ...(backlog === undefined
      ? []
      : [
          ["pending", `${showCount(backlog.pending)}${showAge(backlog.oldestPendingAgeMillis)}`],
          ["waiting", `${showCount(backlog.waiting)} of them for a retry`],
          ["parked", showCount(backlog.parked)]
        ])
  ].map(([name = "", value = ""]) => `${name.padEnd(9)} ${value}`)
  const events = parked.map(
    ({ attemptCount, error, eventId, parkedAt, type }) =>
      `  ${oneLine(eventId)}  ${oneLine(type)}  ${new Date(parkedAt).toISOString()}  attempt ${attemptCount}: ${oneLine(error)}`
  )
  const more = backlog !== undefined && backlog.parked.value > parked.length && parked.length > 0 ? ["  …"] : []
  return [...lines, ...events, ...more].join("\n")
}

const iso = (millis: number | undefined) => (millis === undefined ? null : new Date(millis).toISOString())

const toJson = ({ backlog, parked, ...known }: Status): string =>
  JSON.stringify(
    {
      ...known,
      backlog:
        backlog === undefined
          ? null
          : {
              ...backlog,
              oldestPendingAt: iso(backlog.oldestPendingAt),
              oldestPendingAgeMillis: backlog.oldestPendingAgeMillis ?? null
            },
      parked: parked.map((event) => ({ ...event, parkedAt: iso(event.parkedAt) }))
    },
    null,
    2
  )

/**
 * @since 1.0.0
 * @category commands
 */
export const command = Command.make(
  "status",
  {
    ...ServiceConfig.databaseFlags,
    json: Options.boolean("json").pipe(Options.withDescription("Print JSON, for scripts"))
  },
  ({ json, ...flags }) =>
    Effect.gen(function* () {
      const database = yield* ServiceConfig.database
      if (Database.isEmbedded(database) && !(yield* Database.exists)) {
        return yield* failure(
          `there is no embedded database in ${Database.directory}/ here; serve, append and migrate make one, DATABASE_URL names another`
        )
      }
      const status = yield* read(database)
      yield* Console.log(json ? toJson(status) : show(status))
    }).pipe(ServiceConfig.withFlags(flags))
).pipe(Command.withDescription("Show the backlog and the parked events."))
