/** What the commands share that read an outbox and act on it. */
import * as Options from "@effect/cli/Options"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { hostname, userInfo } from "node:os"
import {
  type By,
  type EventFilter,
  type EventNotFound,
  type EventState,
  type EventSummary,
  type InvalidCursor,
  type PayloadOmitted,
  type WrongState
} from "../../OutboxAdmin.js"
import type { OutboxError } from "../../OutboxStore.js"
import * as PostgresOutboxAdmin from "../../postgres/PostgresOutboxAdmin.js"
import * as DatabaseSettings from "../../postgres/DatabaseSettings.js"
import * as Setting from "../../Setting.js"
import { failure, notFound, usage, wrongState, type CliError } from "./CliError.js"
import * as Database from "./database.js"
import * as Table from "./table.js"
import { escaped, quote } from "./text.js"

/** The existing database: none is created just to be read. */
export const database: Effect.Effect<DatabaseSettings.Database, CliError | Setting.InvalidSetting> = Effect.tap(
  DatabaseSettings.database,
  (database) =>
    Effect.gen(function* () {
      if (Database.isEmbedded(database) && !(yield* Database.exists)) {
        return yield* failure(
          `this directory has no embedded database in ${Database.directory}/: serve, append and migrate create one; set DATABASE_URL for another database`
        )
      }
    })
)

/** The errors of an action on an event. */
export type Failure = OutboxError | EventNotFound | WrongState | InvalidCursor | PayloadOmitted

const explain =
  (database: DatabaseSettings.Database) =>
  (error: Failure): CliError => {
    switch (error._tag) {
      case "OutboxError":
        return Database.explain(database, error)
      case "EventNotFound":
        return notFound(error.message, error)
      case "WrongState":
        return wrongState(`${quote(error.eventId)}: ${error.message}`, error)
      case "PayloadOmitted":
        return failure(`${error.message}; it was not read`, error)
      case "InvalidCursor":
        return usage(`--cursor: got ${quote(error.cursor)}, valid is the cursor of the previous page`)
    }
  }

type Checked = typeof Database.checked

const on =
  (checked: Checked) =>
  <A, E extends Failure | CliError, R>(use: Effect.Effect<A, E, R>) =>
    Effect.flatMap(database, (database) =>
      use.pipe(
        Effect.mapError((error): CliError => (error._tag === "CliError" ? error : explain(database)(error))),
        Effect.provide(
          PostgresOutboxAdmin.layer(database).pipe(
            Layer.provide(checked(database)),
            Layer.provide(Database.layer(database))
          )
        )
      )
    )

/** Runs what operates the outbox of the settings, and explains its failures. */
export const operate = on(Database.checked)

/** Runs what looks at the outbox of the settings and changes nothing. */
export const look = on(Database.checkedToLook)

const user = (): string => {
  try {
    return userInfo().username
  } catch {
    // A user id without a name, as in a container.
    return String(process.getuid?.() ?? "unknown")
  }
}

/** Who runs the command, and the reason. */
export const by = (reason: string): By => ({ actor: `cli ${user()}@${hostname()}`, reason })

// -----------------------------------------------------------------------------
// flags
// -----------------------------------------------------------------------------

export const json = Options.boolean("json").pipe(Options.withDescription("Print JSON, for scripts"))

const longestReason = 500

/** The reason, for the audit log. */
export const reason = Options.text("reason").pipe(Options.withDescription("The reason, for the audit log"))

export const checkReason = (text: string): Effect.Effect<string, CliError> => {
  const reason = text.trim()
  return reason.length >= 1 && reason.length <= longestReason && !reason.includes("\u0000")
    ? Effect.succeed(reason)
    : Effect.fail(usage(`--reason: got ${quote(text)}, valid is text of 1 to ${longestReason} characters`))
}

const text = (name: string, help: string) => Options.text(name).pipe(Options.withDescription(help), Options.optional)

const instant = "a time (2026-05-06T07:08:09Z) or how long ago (90m, 2 hours)"

export const filterFlags = {
  id: text("id", "The event with this id"),
  type: text("type", "Events of this type"),
  tenant: text("tenant", "Events of this tenant"),
  key: text("key", "Events of this ordering key"),
  since: text("since", `Created then or later: ${instant}`),
  until: text("until", `Created before: ${instant}`)
}

export type FilterFlags = { readonly [Name in keyof typeof filterFlags]: Option.Option<string> }

const parseInstant = (flag: string, text: string): Effect.Effect<number, CliError> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => {
    const ago = Setting.parseDuration(text)
    // A date alone would be UTC, but a time without a zone would be local.
    const at = /^\d{4}-\d\d-\d\d/.test(text.trim()) ? Date.parse(text.trim()) : Number.NaN
    if (ago !== undefined && Duration.isFinite(ago)) return Effect.succeed(now - Duration.toMillis(ago))
    return Number.isNaN(at)
      ? Effect.fail(usage(`${flag}: got ${quote(text)}, valid is ${instant}`))
      : Effect.succeed(at)
  })

export const toFilter = (flags: FilterFlags): Effect.Effect<EventFilter, CliError> =>
  Effect.gen(function* () {
    for (const name of ["id", "type", "tenant"] as const) {
      if (Option.contains(flags[name], "")) return yield* usage(`--${name}: valid is non-empty text`)
    }
    const given = <A>(name: string, value: Option.Option<A>) => (Option.isNone(value) ? {} : { [name]: value.value })
    const since = yield* Effect.transposeMapOption(flags.since, (text) => parseInstant("--since", text))
    const until = yield* Effect.transposeMapOption(flags.until, (text) => parseInstant("--until", text))
    return {
      ...given("eventId", flags.id),
      ...given("type", flags.type),
      ...given("tenantId", flags.tenant),
      ...given("orderingKey", flags.key),
      ...given("since", since),
      ...given("until", until)
    }
  })

const states: ReadonlyArray<EventState> = ["pending", "waiting", "parked", "published"]

export const parseState = (text: string): Effect.Effect<EventState, CliError> =>
  Effect.mapError(Effect.fromNullable(states.find((state) => state === text)), () =>
    usage(`--state: got ${quote(text)}, valid is ${states.slice(0, -1).join(", ")} or ${states.at(-1)}`)
  )

const largestPage = 500

export const pageFlags = {
  limit: text("limit", `At most this many, from 1 to ${largestPage}; default 50`),
  cursor: text("cursor", "Where to continue: the cursor of the previous page")
}

export const toPage = (flags: { readonly [Name in keyof typeof pageFlags]: Option.Option<string> }) => {
  const limit = Option.getOrElse(flags.limit, () => "50")
  const value = /^\d+$/.test(limit) ? Number(limit) : 0
  return value >= 1 && value <= largestPage
    ? Effect.succeed({ limit: value, cursor: Option.getOrUndefined(flags.cursor) })
    : Effect.fail(usage(`--limit: got ${quote(limit)}, valid is an integer from 1 to ${largestPage}`))
}

// -----------------------------------------------------------------------------
// output
// -----------------------------------------------------------------------------

export const time = (millis: number): string => new Date(millis).toISOString()

/** Instants are printed as text for people and scripts. */
const isInstant = (name: string) => name === "at" || name.endsWith("At")

export const toJson = (value: unknown, space?: number): string =>
  escaped(
    JSON.stringify(
      value,
      (name, value: unknown) => (isInstant(name) && typeof value === "number" ? time(value) : value),
      space
    )
  )

export const printJson = (value: unknown): string => toJson(value, 2)

/** The state of an event in a few words. */
export const stateOf = (event: EventSummary): string => {
  switch (event.state) {
    case "published":
      return `published as ${event.controlVersion}`
    case "waiting":
      return `waiting until ${time(event.nextAttemptAt!)}`
    default:
      return event.state
  }
}

export const showEvents = (events: ReadonlyArray<EventSummary>): string =>
  Table.render(
    ["EVENT", "TYPE", "KEY", "CREATED", "STATE", "ATTEMPTS", "ERROR"],
    events.map((event) => [
      event.eventId,
      event.type,
      event.orderingKey,
      time(event.createdAt),
      stateOf(event),
      String(event.attemptCount),
      event.state === "published" ? "" : (event.lastError ?? "")
    ])
  )

/** The line after a page. */
export const more = (next: string | undefined): string => (next === undefined ? "" : `\nMore: --cursor ${next}`)
