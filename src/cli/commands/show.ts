/**
 * `controlpublish show`: one event, with its payload and its failed attempts.
 *
 * @since 1.0.0
 */
import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { EventNotFound, OutboxAdmin, type EventDetail } from "../../OutboxAdmin.js"
import { cut, indented } from "../../internal/indented.js"
import { failure } from "../internal/CliError.js"
import * as Operating from "../internal/operating.js"
import * as Table from "../internal/table.js"
import { oneLine } from "../internal/text.js"
import * as DatabaseSettings from "../../postgres/DatabaseSettings.js"
import * as SettingFlags from "../SettingFlags.js"

/** For people: a payload that is JSON is laid out, and nothing in it can move the cursor. */
const showPayload = (payload: string): string => {
  const beginning = cut(payload)
  const lines = (beginning ?? indented(payload)).split("\n").map((line) => `  ${/^ */.exec(line)![0]}${oneLine(line)}`)
  return beginning === undefined
    ? lines.join("\n")
    : [...lines, `cut: these are the first of ${payload.length} characters, --raw prints all of them`].join("\n")
}

const show = (event: EventDetail): string => {
  const at = (millis: number | undefined) => (millis === undefined ? undefined : Operating.time(millis))
  const lines = [
    ["event", event.eventId],
    ["type", event.type],
    ["tenant", event.tenantId],
    ["stack", event.stackId],
    ["key", JSON.stringify(event.orderingKey)],
    ["lane", String(event.lane)],
    ["state", Operating.stateOf(event)],
    ["created", at(event.createdAt)],
    ["published", at(event.publishedAt)],
    ["parked", at(event.parkedAt)],
    ["attempts", String(event.attemptCount)],
    ["error", event.lastError],
    ["trace", event.traceparent]
  ].flatMap(([name = "", value]) => (value === undefined ? [] : [`${name.padEnd(10)}${oneLine(value)}`]))
  const attempts =
    event.failedAttempts.length === 0
      ? []
      : [
          "failed attempts",
          ...Table.render(
            ["  AT", "NEXT", "ERROR"],
            event.failedAttempts.map(({ at, error, nextAttemptAt }) => [
              Operating.time(at),
              nextAttemptAt === undefined ? "parked" : Operating.time(nextAttemptAt),
              error
            ])
          )
            .split("\n")
            .map((line, index) => (index === 0 ? line : `  ${line}`))
        ]
  return [
    ...lines,
    ...attempts,
    "payload",
    event.payloadOmitted === undefined ? showPayload(event.payload) : `not shown: it has ${event.payloadOmitted} bytes`
  ].join("\n")
}

/**
 * @since 1.0.0
 * @category commands
 */
export const command = Command.make(
  "show",
  {
    settings: SettingFlags.make(DatabaseSettings.group),
    json: Operating.json,
    raw: Options.boolean("raw").pipe(Options.withDescription("Print the payload alone, as the feed carries it")),
    id: Args.text({ name: "id" }).pipe(Args.withDescription("The event's id"))
  },
  ({ id, json, raw, settings }) =>
    Effect.gen(function* () {
      const event = yield* Operating.operate(
        Effect.flatMap(OutboxAdmin, (admin) =>
          Effect.flatMap(
            admin.event(id),
            Option.match({ onNone: () => new EventNotFound({ eventId: id }), onSome: Effect.succeed })
          )
        )
      )
      if (raw && event.payloadOmitted !== undefined) {
        return yield* failure(`the payload of ${id} is beyond the outbox's limit: it has ${event.payloadOmitted} bytes`)
      }
      if (raw) return yield* Console.log(event.payload)
      yield* Console.log(json ? Operating.printJson(event) : show(event))
    }).pipe(SettingFlags.provide(settings))
).pipe(Command.withDescription("Show one event with its payload and its last failed attempts."))
