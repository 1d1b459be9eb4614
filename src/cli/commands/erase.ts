/**
 * `controlpublish erase`: replaces the payload of an event that is published, or was discarded, by a marker.
 *
 * @since 1.0.0
 */
import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { OutboxAdmin } from "../../OutboxAdmin.js"
import * as DatabaseSettings from "../../postgres/DatabaseSettings.js"
import * as Operating from "../internal/operating.js"
import { oneLine } from "../internal/text.js"
import * as SettingFlags from "../SettingFlags.js"

/**
 * @since 1.0.0
 * @category commands
 */
export const command = Command.make(
  "erase",
  {
    settings: SettingFlags.make(DatabaseSettings.group),
    reason: Operating.reason,
    json: Operating.json,
    id: Args.text({ name: "id" }).pipe(Args.withDescription("The event's id"))
  },
  ({ id, json, reason, settings }) =>
    Effect.gen(function* () {
      const by = Operating.by(yield* Operating.checkReason(reason))
      const erased = yield* Operating.operate(Effect.flatMap(OutboxAdmin, (admin) => admin.erase(id, by)))
      const lines = [`Erased the payload of ${id}.`, ...erased.remains]
      yield* Console.log(json ? Operating.printJson(erased) : lines.map(oneLine).join("\n"))
    }).pipe(SettingFlags.provide(settings))
).pipe(
  Command.withDescription(
    "Erase the payload of a published or a discarded event from the outbox. The feed and the nodes still have it."
  )
)
