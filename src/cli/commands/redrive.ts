/**
 * `controlpublish redrive`: makes parked events pending again.
 *
 * @since 1.0.0
 */
import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Struct from "effect/Struct"
import { EventNotFound, OutboxAdmin, WrongState, type By, type EventFilter } from "../../OutboxAdmin.js"
import { usage } from "../internal/CliError.js"
import * as Operating from "../internal/operating.js"
import { count, quote } from "../internal/text.js"
import * as DatabaseSettings from "../../postgres/DatabaseSettings.js"
import * as SettingFlags from "../SettingFlags.js"

/** One after another: the first one that cannot be redriven ends it, and is told of. */
const redriveEach = (ids: ReadonlyArray<string>, by: By) =>
  Effect.flatMap(OutboxAdmin, (admin) =>
    Effect.forEach(ids, (eventId) =>
      Effect.gen(function* () {
        if ((yield* admin.redrive({ eventId }, by)) > 0) return
        const event = yield* admin.event(eventId)
        if (Option.isNone(event)) return yield* new EventNotFound({ eventId })
        const { state } = event.value
        return yield* new WrongState({
          eventId,
          state,
          message: `The event is ${state}: only one that is parked can be redriven`
        })
      })
    )
  ).pipe(Effect.as(ids.length))

const redriveAll = (filter: EventFilter, by: By) => Effect.flatMap(OutboxAdmin, (admin) => admin.redrive(filter, by))

const filterFlags = Struct.omit(Operating.filterFlags, "id")

/**
 * @since 1.0.0
 * @category commands
 */
export const command = Command.make(
  "redrive",
  {
    settings: SettingFlags.make(DatabaseSettings.group),
    ...filterFlags,
    all: Options.boolean("all").pipe(Options.withDescription("All parked events")),
    reason: Operating.reason.pipe(Options.withDefault("redriven from the command line")),
    json: Operating.json,
    ids: Args.text({ name: "id" }).pipe(Args.withDescription("The events' ids"), Args.repeated)
  },
  ({ all, ids, json, reason, settings, ...flags }) =>
    Effect.gen(function* () {
      const by = Operating.by(yield* Operating.checkReason(reason))
      const filter = yield* Operating.toFilter({ ...flags, id: Option.none() })
      const ways = [ids.length > 0, Object.keys(filter).length > 0, all].filter((given) => given)
      // Whatever option is not known is taken for an id, and the ids before it would be redriven.
      const unknown = ids.find((id) => id.startsWith("--"))
      if (unknown !== undefined) return yield* usage(`redrive has no option ${quote(unknown)}`)
      if (ways.length !== 1) return yield* usage("redrive takes ids, or a filter (--tenant t1 …), or --all")
      const affected = yield* Operating.operate(ids.length > 0 ? redriveEach(ids, by) : redriveAll(filter, by))
      return yield* Console.log(json ? Operating.printJson({ affected }) : `Redrove ${count(affected, "event")}.`)
    }).pipe(SettingFlags.provide(settings))
).pipe(
  Command.withDescription(
    "Make parked events pending again, in their old place: by their ids, all that a filter lets through, or all there are."
  )
)
