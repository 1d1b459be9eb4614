/**
 * `controlpublish status`: the backlog of the outbox, and the pumps.
 *
 * @since 0.1.0
 */
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import type * as SqlClient from "@effect/sql/SqlClient"
import * as Clock from "effect/Clock"
import * as Console from "effect/Console"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { OutboxAdmin, type EventSummary, type Overview } from "../../OutboxAdmin.js"
import type { Count } from "../../OutboxStore.js"
import * as Migrations from "../../postgres/Migrations.js"
import * as PostgresOutboxAdmin from "../../postgres/PostgresOutboxAdmin.js"
import type { FeedBound } from "../../FeedBound.js"
import type { AttendedPump } from "../../PumpStatus.js"
import { CliError, usage } from "../internal/CliError.js"
import * as Database from "../internal/database.js"
import { endsWell } from "../internal/endsWell.js"
import * as Strangers from "../../internal/strangers.js"
import * as Operating from "../internal/operating.js"
import * as Table from "../internal/table.js"
import { count, quote } from "../internal/text.js"
import * as DatabaseSettings from "../../postgres/DatabaseSettings.js"
import * as SettingFlags from "../SettingFlags.js"

/** Counts stop here, so that a status costs the same for any backlog. */
const countLimit = 100_000

/** Events and lanes that are listed. */
const listed = 5

/** The time between two readings. */
const period = Duration.seconds(2)

interface Status {
  readonly at: number
  readonly database: string
  readonly schema: string
  readonly migration: { readonly current: number; readonly latest: number }
  /** Absent if there is no outbox. */
  readonly overview: Overview | undefined
  /** All pumps that run or ran a short time ago, on any host. */
  readonly pumps: ReadonlyArray<AttendedPump>
  /** The newest parked events. */
  readonly parked: ReadonlyArray<EventSummary>
}

const read = (
  database: DatabaseSettings.Database
): Effect.Effect<Status, CliError, OutboxAdmin | SqlClient.SqlClient> =>
  Effect.gen(function* () {
    const current = yield* Migrations.current(database)
    const known = {
      at: yield* Clock.currentTimeMillis,
      database: Database.describe(database),
      schema: database.schema,
      migration: { current, latest: Migrations.latest.id }
    }
    if (current === 0) return { ...known, overview: undefined, pumps: [], parked: [] }
    const admin = yield* OutboxAdmin
    const overview = yield* admin.overview({ limit: countLimit })
    const parked = yield* admin.events({ state: "parked" }, { limit: listed })
    const pumps = current < Migrations.latest.id ? [] : yield* admin.pumps()
    return { ...known, overview, pumps, parked: parked.events }
  }).pipe(
    Effect.catchTags({
      OutboxError: (error) => Database.explain(database, error),
      SqlError: (error) => Database.explain(database, error),
      InvalidCursor: (defect) => Effect.die(defect)
    })
  )

const oldestAge = ({ at, overview }: Status): number | undefined =>
  overview?.oldestPendingAt === undefined ? undefined : Math.max(Math.round(at - overview.oldestPendingAt), 0)

const showCount = ({ exact, value }: Count): string => (exact ? String(value) : `at least ${value}`)

const showMigration = ({ current, latest }: Status["migration"]): string => {
  if (current === 0) return `none: run "controlpublish migrate"`
  if (current < latest) return `${current}, this version needs ${latest}: run "controlpublish migrate"`
  return current > latest ? `${current}, made by a later version: this one knows ${latest}` : `${current} (latest)`
}

const showAge = (millis: number | undefined): string =>
  millis === undefined ? "" : `, the oldest for ${Duration.format(Duration.seconds(Math.floor(millis / 1000)))}`

const showFor = (millis: number): string => Duration.format(Duration.seconds(Math.max(0, Math.floor(millis / 1000))))

/** Whether a pump publishes, or could if there were events, and if not, the reason. */
const publishing = ({ at, pumps }: Status): { readonly ok: boolean; readonly message: string } => {
  const running = pumps.filter(({ lost }) => !lost)
  if (running.length === 0) {
    const dead = pumps.length === 0 ? "" : `; ${count(pumps.length, "pump")} stopped answering, see below`
    return {
      ok: false,
      message: `NO PUMP RUNS${dead}: nothing is published until one does, start "controlpublish serve" or the application`
    }
  }
  const working = running.filter(
    ({ state, trouble }) => trouble === undefined && ["idle", "publishing"].includes(state)
  )
  if (working.length > 0)
    return { ok: true, message: `${working.length} of ${count(pumps.length, "pump")} can publish` }
  const broken = running.find(({ trouble }) => trouble !== undefined)
  if (broken?.trouble === undefined) {
    const states = Array.from(new Set(running.map(({ state }) => state))).join(", ")
    return { ok: false, message: `NO: ${count(running.length, "pump")} ${states}` }
  }
  const { message, of, since } = broken.trouble
  return {
    ok: false,
    message: `NO, the ${of === "sink" ? `sink ${broken.sink}` : of} fails for ${showFor(at - since)}: ${message}`
  }
}

/** What the pumps that run found out about the feed. */
const boundsOf = ({ pumps }: Status): ReadonlyArray<FeedBound> => {
  const found = new Map(
    pumps.flatMap(({ bounds = [], lost }) => (lost ? [] : bounds.map((bound) => [bound.message, bound] as const)))
  )
  return Array.from(found.values())
}

const showPumps = ({ at, pumps }: Status): ReadonlyArray<string> =>
  pumps.length === 0
    ? []
    : [
        "pumps:",
        ...indented(
          Table.render(
            ["HOST", "PROCESS", "STATE", "FOR", "SINK", "EVENTS/S", "PUBLISHED", "LAST PUBLISH", "TROUBLE"],
            pumps.map((pump) => [
              pump.host,
              String(pump.pid),
              pump.lost ? "lost" : pump.state,
              showFor(at - (pump.lost ? pump.seenAt : pump.since)),
              pump.sink,
              pump.rate === undefined ? "" : pump.rate.toFixed(1),
              String(pump.published),
              pump.lastPublishedAt === undefined ? "" : Operating.time(pump.lastPublishedAt),
              pump.trouble === undefined ? "" : `${pump.trouble.of}: ${pump.trouble.message}`
            ])
          )
        )
      ]

/** Lane heads whose attempts failed: later events of their keys wait. */
const failing = ({ lanes }: Overview) =>
  lanes.flatMap(({ head, lane }) => (head === undefined || head.attemptCount === 0 ? [] : [{ lane, ...head }]))

const indented = (table: string): ReadonlyArray<string> => table.split("\n").map((line) => `  ${line}`)

const show = (status: Status): string => {
  const { database, migration, overview, parked, schema } = status
  const lines = [
    ["database", database],
    ["schema", quote(schema)],
    ["migration", showMigration(migration)],
    ...(overview === undefined
      ? []
      : [
          ["publishes", publishing(status).message],
          ["pending", `${showCount(overview.pending)}${showAge(oldestAge(status))}`],
          ["waiting", `${showCount(overview.waiting)} of them for a retry`],
          ["parked", showCount(overview.parked)],
          ...(overview.strangers ?? []).map((stranger) => ["held up", Strangers.describe(stranger)]),
          ...boundsOf(status).map(({ message }) => ["bounded", message])
        ])
  ].map(([name = "", value = ""]) => `${name.padEnd(9)} ${value}`)
  const heads = overview === undefined ? [] : failing(overview)
  return [
    ...lines,
    ...showPumps(status),
    ...(heads.length === 0
      ? []
      : [
          "at the head of a lane and failing:",
          ...indented(
            Table.render(
              ["LANE", "EVENT", "TYPE", "KEY", "ATTEMPTS", "NEXT", "ERROR"],
              heads
                .slice(0, listed)
                .map(({ attemptCount, eventId, lane, lastError, nextAttemptAt, orderingKey, type }) => [
                  String(lane),
                  eventId,
                  type,
                  orderingKey,
                  String(attemptCount),
                  nextAttemptAt === undefined ? "" : Operating.time(nextAttemptAt),
                  lastError ?? ""
                ])
            )
          )
        ]),
    ...(parked.length === 0
      ? []
      : [
          "parked last:",
          ...indented(
            Table.render(
              ["EVENT", "TYPE", "KEY", "PARKED", "ATTEMPTS", "ERROR"],
              parked.map(({ attemptCount, eventId, lastError, orderingKey, parkedAt, type }) => [
                eventId,
                type,
                orderingKey,
                Operating.time(parkedAt!),
                String(attemptCount),
                lastError ?? ""
              ])
            )
          )
        ])
  ].join("\n")
}

const toJson = (status: Status) => {
  const { overview, parked, ...known } = status
  return {
    ...known,
    publishing: publishing(status),
    bounds: boundsOf(status),
    backlog:
      overview === undefined
        ? null
        : {
            ...overview,
            oldestPendingAt: overview.oldestPendingAt ?? null,
            oldestPendingAgeMillis: oldestAge(status) ?? null
          },
    parked
  }
}

const isTerminal = () => process.stdout.isTTY

const clear = "\u001b[H\u001b[2J"

/** Runs until interrupted. On a terminal each reading replaces the one before; with JSON each is a line. */
const watch = (database: DatabaseSettings.Database, json: boolean) => {
  const print = (text: string) => Console.log(isTerminal() && !json ? `${clear}${text}` : text)
  const look = Effect.flatMap(read(database), (status) =>
    json
      ? print(Operating.toJson(toJson(status)))
      : print(`${Operating.time(status.at)}\n${show(status)}${isTerminal() ? "\nStop with Ctrl-C." : "\n"}`)
  )
  return look.pipe(
    // The database may be down while somebody watches.
    Effect.catchAll((error) => Console.error(`controlpublish: ${error.message}`)),
    Effect.delay(period),
    Effect.forever,
    (next) => Effect.zipRight(look, next),
    endsWell
  )
}

/**
 * Shows the backlog, the pumps and the parked events.
 *
 * @since 0.1.0
 * @category commands
 */
export const command = Command.make(
  "status",
  {
    settings: SettingFlags.make(DatabaseSettings.group),
    watch: Options.boolean("watch").pipe(
      Options.withDescription("Refresh every two seconds until Ctrl-C; with --json print one line each")
    ),
    check: Options.boolean("check").pipe(
      Options.withDescription("Exit with code 5 if no pump can publish, for probes and scripts")
    ),
    json: Operating.json
  },
  ({ check, json, watch: watching, settings }) =>
    Effect.gen(function* () {
      const database = yield* Operating.database
      if (check && watching) return yield* usage("--check and --watch exclude each other")
      const once = Effect.gen(function* () {
        const status = yield* read(database)
        yield* Console.log(json ? Operating.printJson(toJson(status)) : show(status))
        const { message, ok } = publishing(status)
        if (check && !ok) return yield* new CliError({ message: `nothing is published: ${message}`, exitCode: 5 })
      })
      yield* Effect.zipRight(Database.warnOfSequence(database), watching ? watch(database, json) : once).pipe(
        Effect.provide(PostgresOutboxAdmin.layer(database)),
        Effect.provide(Database.layer(database))
      )
    }).pipe(SettingFlags.provide(settings))
).pipe(
  Command.withDescription("Show the backlog, all pumps and what keeps them from publishing, and the parked events.")
)
