/**
 * `controlpublish audit`: what operators did.
 *
 * @since 0.1.0
 */
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { OutboxAdmin, type AuditEntry } from "../../OutboxAdmin.js"
import * as Operating from "../internal/operating.js"
import * as Table from "../internal/table.js"
import { count } from "../internal/text.js"
import * as DatabaseSettings from "../../postgres/DatabaseSettings.js"
import * as SettingFlags from "../SettingFlags.js"

/** The events that the action was on. */
const objectOf = ({ action, affected, eventId, filter }: AuditEntry): string => {
  if (eventId !== undefined) return eventId
  if (action === "refused") return affected === undefined ? "" : count(affected, "write")
  if (filter === undefined) return affected === undefined ? "" : count(affected, "published event")
  const which = Object.keys(filter).length === 0 ? "" : ` ${JSON.stringify(filter)}`
  return `${count(affected ?? 0, "parked event")}${which}`
}

/**
 * Lists what operators did.
 *
 * @since 0.1.0
 * @category commands
 */
export const command = Command.make(
  "audit",
  {
    settings: SettingFlags.make(DatabaseSettings.group),
    changes: Options.boolean("changes").pipe(Options.withDescription("Leave out reads and refused writes")),
    ...Operating.pageFlags,
    json: Operating.json
  },
  ({ changes, cursor, json, limit, settings }) =>
    Effect.gen(function* () {
      const options = yield* Operating.toPage({ limit, cursor })
      const page = yield* Operating.look(
        Effect.flatMap(OutboxAdmin, (admin) => admin.audit({ ...options, changesOnly: changes }))
      )
      if (json) return yield* Console.log(Operating.printJson(page))
      const { entries, next } = page
      const found =
        entries.length === 0
          ? "The audit log is empty."
          : Table.render(
              ["AT", "ACTION", "TO", "BY", "REASON"],
              entries.map((entry) => [
                Operating.time(entry.at),
                entry.action,
                objectOf(entry),
                entry.actor,
                entry.reason
              ])
            )
      return yield* Console.log(`${found}${Operating.more(next)}`)
    }).pipe(SettingFlags.provide(settings))
).pipe(Command.withDescription("List the actions of operators, newest first: time, action, event, actor and reason."))
