/** The commands that do something to one event. */
import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { OutboxAdmin } from "../../OutboxAdmin.js"
import * as ServiceConfig from "../ServiceConfig.js"
import * as Operating from "./operating.js"
import { oneLine } from "./text.js"

/** `park` or `discard`. */
export const make = (action: "park" | "discard", options: { readonly done: string; readonly description: string }) =>
  Command.make(
    action,
    {
      ...ServiceConfig.databaseFlags,
      reason: Operating.reason,
      json: Operating.json,
      id: Args.text({ name: "id" }).pipe(Args.withDescription("The event's id"))
    },
    ({ id, json, reason, ...flags }) =>
      Effect.gen(function* () {
        const by = Operating.by(yield* Operating.checkReason(reason))
        yield* Operating.operate(Effect.flatMap(OutboxAdmin, (admin) => admin[action](id, by)))
        yield* Console.log(json ? Operating.printJson({ affected: 1 }) : `${options.done} ${oneLine(id)}.`)
      }).pipe(ServiceConfig.withFlags(flags))
  ).pipe(Command.withDescription(options.description))
