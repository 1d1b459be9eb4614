/** The commands that act on one event. */
import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { OutboxAdmin, type By } from "../../OutboxAdmin.js"
import * as DatabaseSettings from "../../postgres/DatabaseSettings.js"
import * as SettingFlags from "../SettingFlags.js"
import * as Operating from "./operating.js"
import { oneLine } from "./text.js"

/** `act` performs the action; `show` returns lines that report it. */
export const make = <A>(
  action: string,
  options: {
    readonly description: string
    readonly act: (admin: OutboxAdmin["Type"], id: string, by: By) => Effect.Effect<A, Operating.Failure>
    readonly show: (id: string, done: A) => ReadonlyArray<string>
  }
) =>
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
        const done = yield* Operating.operate(Effect.flatMap(OutboxAdmin, (admin) => options.act(admin, id, by)))
        yield* Console.log(json ? Operating.printJson(done) : options.show(id, done).map(oneLine).join("\n"))
      }).pipe(SettingFlags.provide(settings))
  ).pipe(Command.withDescription(options.description))
