/** The commands that talk to the pump of a running service. */
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as AdminSettings from "../../admin/AdminSettings.js"
import * as DatabaseSettings from "../../postgres/DatabaseSettings.js"
import * as SettingFlags from "../SettingFlags.js"
import * as WhichService from "./whichService.js"

/** `pause` or `resume`. */
export const make = (
  action: "pause" | "resume",
  options: { readonly done: (url: string) => string; readonly description: string }
) =>
  Command.make(
    action,
    {
      settings: SettingFlags.make(DatabaseSettings.group, AdminSettings.clientGroup),
      reason: Options.text("reason").pipe(Options.withDescription("The reason, for the audit log")),
      json: Options.boolean("json").pipe(Options.withDescription("Print the pump's status as JSON, for scripts"))
    },
    ({ json, reason, settings }) =>
      Effect.gen(function* () {
        const service = yield* WhichService.find(yield* AdminSettings.client, yield* DatabaseSettings.database)
        // Most commands need no client and should not load one.
        const { tell } = yield* Effect.promise(() => import("./pumpClient.js"))
        const status = yield* tell(service, action, reason)
        yield* Console.log(json ? JSON.stringify(status, null, 2) : options.done(service.url))
      }).pipe(SettingFlags.provide(settings))
  ).pipe(Command.withDescription(options.description))
