/**
 * `controlpublish events`: the events that match a filter, newest first.
 *
 * @since 0.1.0
 */
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { OutboxAdmin } from "../../OutboxAdmin.js"
import * as Operating from "../internal/operating.js"
import * as DatabaseSettings from "../../postgres/DatabaseSettings.js"
import * as SettingFlags from "../SettingFlags.js"

/**
 * Lists events of the outbox.
 *
 * @since 0.1.0
 * @category commands
 */
export const command = Command.make(
  "events",
  {
    settings: SettingFlags.make(DatabaseSettings.group),
    ...Operating.filterFlags,
    state: Options.text("state").pipe(
      Options.withDescription("Events in this state: pending (includes waiting), waiting, parked or published"),
      Options.optional
    ),
    ...Operating.pageFlags,
    json: Operating.json
  },
  ({ cursor, json, limit, settings, state, ...filterFlags }) =>
    Effect.gen(function* () {
      const wanted = yield* Effect.transposeMapOption(state, Operating.parseState)
      const filter = {
        ...(yield* Operating.toFilter(filterFlags)),
        ...(wanted._tag === "None" ? {} : { state: wanted.value })
      }
      const options = yield* Operating.toPage({ limit, cursor })
      const page = yield* Operating.look(Effect.flatMap(OutboxAdmin, (admin) => admin.events(filter, options)))
      const { events, next } = page
      if (json) return yield* Console.log(Operating.printJson(page))
      const found = events.length === 0 ? "No events found." : Operating.showEvents(events)
      return yield* Console.log(`${found}${Operating.more(next)}`)
    }).pipe(SettingFlags.provide(settings))
).pipe(
  Command.withDescription(
    "List events, newest first. A page reads a bounded number of rows: it may be short or even empty, and prints the cursor of the next page."
  )
)
