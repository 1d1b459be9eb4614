/** The commands that do something to one event. */
import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { OutboxAdmin } from "../../OutboxAdmin.js"
import * as DatabaseSettings from "../../postgres/DatabaseSettings.js"
import * as SettingFlags from "../SettingFlags.js"
import * as Operating from "./operating.js"
import { oneLine } from "./text.js"

/** `park` or `discard`. */
export const make = (action: "park" | "discard", options: { readonly done: string; readonly description: string }) =>
  Command.make(
    action,
    {
      settings: SettingFlags.make(DatabaseSettings.group),
      reason: Operating.reason,
      json: Operating.json,
      id: Args.text({ name: "id" }).pipe(Args.withDescription("The event's id"))
    },
    ({ id, json, reason, settings }) =>
      Effect.gen(function* () {
        const by = Operating.by(yield* Operating.checkReason(reason))
        yield* Operating.operate(Effect.flatMap(OutboxAdmin, (admin) => admin[action](id, by)))
        yield* Console.log(json ? Operating.printJson({ affected: 1 }) : `${options.done} ${oneLine(id)}.`)
      }).pipe(SettingFlags.provide(settings))
  ).pipe(Command.withDescription(options.description))
