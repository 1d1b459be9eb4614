/**
 * `controlpublish show`: one event, with its payload and its failed attempts.
 *
 * @since 0.1.0
 */
import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { EventNotFound, OutboxAdmin, type EventDetail } from "../../OutboxAdmin.js"
import { indented } from "../../internal/indented.js"
import { usage } from "../internal/CliError.js"
import * as Operating from "../internal/operating.js"
import { readerLeft } from "../internal/readerLeft.js"
import * as Table from "../internal/table.js"
import { oneLine } from "../internal/text.js"
import * as DatabaseSettings from "../../postgres/DatabaseSettings.js"
import * as SettingFlags from "../SettingFlags.js"

/** For people: JSON is indented, and control characters are escaped. */
const showPayload = ({ payload, payloadBytes, payloadCut, payloadOmitted }: EventDetail): string => {
  if (payloadOmitted !== undefined) return `not shown: ${payloadOmitted} bytes`
  const lines = (payloadCut === true ? payload : indented(payload))
    .split("\n")
    .map((line) => `  ${/^ */.exec(line)![0]}${oneLine(line)}`)
  return payloadCut === true
    ? [...lines, `cut: the first part of ${payloadBytes} bytes; --raw prints all of them`].join("\n")
    : lines.join("\n")
}

/** Waits until the text is written, so that a slow reader makes at most one piece stay in memory. */
const print = (text: string | Uint8Array): Effect.Effect<void> =>
  Effect.async((resume) => {
    process.stdout.write(text, () => resume(Effect.void))
  })

const printRaw = (id: string) =>
  Effect.flatMap(OutboxAdmin, (admin) =>
    Effect.flatMap(admin.payload(id), ({ pieces }) =>
      Effect.zipRight(noted(id, "shown raw"), Stream.runForEach(pieces, print))
    )
  ).pipe(Effect.zipRight(print("\n")), Effect.raceFirst(readerLeft))

const event = (id: string) =>
  Effect.flatMap(OutboxAdmin, (admin) =>
    Effect.flatMap(
      admin.event(id),
      Option.match({ onNone: () => new EventNotFound({ eventId: id }), onSome: Effect.succeed })
    )
  )

/** A role without write access can show events too. The database's own log then has its queries. */
const noted = (id: string, how: string) =>
  Effect.flatMap(OutboxAdmin, (admin) => admin.record("read", Operating.by(how), { eventId: id })).pipe(
    Effect.catchAll(({ message }) => Effect.logDebug(`The audit log has no entry for this: ${message}`))
  )

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
    ["trace", event.traceparent],
    ["cut", event.cut?.join(", ")]
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
  return [...lines, ...attempts, "payload", showPayload(event)].join("\n")
}

/**
 * Shows one event.
 *
 * @since 0.1.0
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
      if (raw && json) return yield* usage("--raw prints the payload alone: leave out --json, or --raw")
      if (raw) return yield* Operating.look(printRaw(id))
      const found = yield* Operating.look(Effect.tap(event(id), () => noted(id, "shown")))
      yield* Console.log(json ? Operating.printJson(found) : show(found))
    }).pipe(SettingFlags.provide(settings))
).pipe(Command.withDescription("Show one event with its payload and its last failed attempts."))
