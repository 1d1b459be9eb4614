/**
 * `controlpublish redrive`: makes parked events pending again.
 *
 * @since 0.1.0
 */
import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Struct from "effect/Struct"
import { EventNotFound, OutboxAdmin, WrongState, type By, type EventFilter } from "../../OutboxAdmin.js"
import { notFound, usage, wrongState } from "../internal/CliError.js"
import * as Operating from "../internal/operating.js"
import { count, quote } from "../internal/text.js"
import * as DatabaseSettings from "../../postgres/DatabaseSettings.js"
import * as SettingFlags from "../SettingFlags.js"

/** The reason why an event cannot be redriven; `undefined` if it can. */
const obstacle = (eventId: string) =>
  Effect.map(
    Effect.flatMap(OutboxAdmin, (admin) => admin.event(eventId)),
    Option.match({
      onNone: () => new EventNotFound({ eventId }),
      onSome: ({ state }) =>
        state === "parked"
          ? undefined
          : new WrongState({
              eventId,
              state,
              message: `The event is ${state}: only one that is parked can be redriven`
            })
    })
  )

/** All or none, as far as known beforehand: ids are checked before the first event is redriven. */
const redriveEach = (given: ReadonlyArray<string>, by: By) =>
  Effect.gen(function* () {
    const admin = yield* OutboxAdmin
    const ids = Array.from(new Set(given))
    const obstacles = (yield* Effect.forEach(ids, obstacle)).filter((found) => found !== undefined)
    const [first] = obstacles
    if (first !== undefined && ids.length === 1) return yield* first
    if (first !== undefined) {
      const each = obstacles.map((error) => `${quote(error.eventId)}: ${error.message}`).join("; ")
      const fail = obstacles.some(({ _tag }) => _tag === "EventNotFound") ? notFound : wrongState
      return yield* fail(`Nothing was redriven. ${each}`, first)
    }
    let affected = 0
    for (const eventId of ids) {
      const redriven = yield* admin.redrive({ eventId }, by)
      // Another operator was faster.
      if (redriven === 0) {
        const error = yield* obstacle(eventId)
        return yield* wrongState(
          `Redrove ${count(affected, "event")} before ${quote(eventId)}: ${error?.message ?? "it was parked again"}`,
          error
        )
      }
      affected += redriven
    }
    return affected
  })

const redriveAll = (filter: EventFilter, by: By) => Effect.flatMap(OutboxAdmin, (admin) => admin.redrive(filter, by))

const filterFlags = Struct.omit(Operating.filterFlags, "id")

/**
 * Redrives parked events.
 *
 * @since 0.1.0
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
      // @effect/cli takes an unknown option for an id, and ids before it would be redriven.
      const unknown = ids.find((id) => id.startsWith("--"))
      if (unknown !== undefined) return yield* usage(`${quote(unknown)} is not an option of redrive`)
      if (ways.length !== 1) return yield* usage("redrive needs ids, a filter (--tenant t1 …), or --all")
      const affected = yield* Operating.operate(ids.length > 0 ? redriveEach(ids, by) : redriveAll(filter, by))
      return yield* Console.log(json ? Operating.printJson({ affected }) : `Redrove ${count(affected, "event")}.`)
    }).pipe(SettingFlags.provide(settings))
).pipe(
  Command.withDescription(
    "Make parked events pending again, in their old place in the order: by id, by filter, or all of them."
  )
)
