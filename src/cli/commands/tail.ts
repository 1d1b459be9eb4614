/**
 * `controlpublish tail`: follows the feed.
 *
 * @since 0.1.0
 */
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as ControlEvent from "../../ControlEvent.js"
import { Source, type FeedEvent } from "../../fleet/Source.js"
import { failure, usage } from "../internal/CliError.js"
import * as SourceOf from "../internal/source.js"
import { readerLeft } from "../internal/readerLeft.js"
import { escaped, oneLine } from "../internal/text.js"
import * as FeedSettings from "../FeedSettings.js"
import * as SettingFlags from "../SettingFlags.js"

/** The number of newest events that are shown by default. */
const newestEvents = 10

/** The event with its version, or why the text is not an event. */
const withVersion = ({ text, version }: FeedEvent): Readonly<Record<string, unknown>> => {
  const value = Either.getOrUndefined(ControlEvent.parse(text))
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? { ...value, control_version: version }
    : { control_version: version, invalid: text }
}

const toJson = (event: FeedEvent): string => escaped(JSON.stringify(withVersion(event)))

const toLine = (event: FeedEvent): string => {
  const fields = withVersion(event)
  const version = String(event.version).padStart(8)
  if ("invalid" in fields) return `${version}  is not a control event`
  const text = (name: string) => {
    const value = fields[name]
    return value === undefined ? "-" : oneLine(typeof value === "string" ? value : JSON.stringify(value))
  }
  const stack = fields.stack_id === undefined ? "" : ` ${text("stack_id")}@${text("version")}`
  return `${version}  ${text("created_at").padEnd(24)}  ${text("type").padEnd(24)}  ${text("tenant_id")}${stack}  ${text("event_id")}`
}

const tail = (options: {
  readonly after: number | undefined
  readonly follow: boolean
  readonly show: (event: FeedEvent) => string
}) =>
  Effect.gen(function* () {
    const source = yield* Source
    const { newest, oldest } = yield* source.look
    const { after = newest - newestEvents, follow, show } = options
    if (after > newest) return yield* failure(`--after: got ${after}, and the feed ends at control version ${newest}`)
    // A stream may have dropped earlier events.
    const from = Math.max(after, oldest - 1)
    if (!follow && from === newest) return
    const events = source.events(from)
    const wanted = follow ? events : Stream.takeUntil(events, ({ version }) => version >= newest)
    yield* Stream.runForEach(wanted, (event) => Console.log(show(event)))
  })

/**
 * Prints the newest events of the feed.
 *
 * @since 0.1.0
 * @category commands
 */
export const command = Command.make(
  "tail",
  {
    settings: SettingFlags.make(...FeedSettings.sourceGroups),
    after: Options.integer("after").pipe(
      Options.withDescription(
        `Start after this control version, 0 for the oldest event (default: the newest ${newestEvents} events)`
      ),
      Options.optional
    ),
    noFollow: Options.boolean("no-follow").pipe(Options.withDescription("Stop after the newest event")),
    json: Options.boolean("json").pipe(Options.withDescription("Print each event as a line of JSON, for scripts"))
  },
  ({ after, json, noFollow, settings }) =>
    Effect.gen(function* () {
      if (Option.exists(after, (version) => version < 0)) return yield* usage("--after: valid is an integer from 0")
      const config = yield* FeedSettings.source
      if (config._tag === "nop")
        return yield* usage("there is no feed: set FEED_SOURCE (--source) to file or jetstream")
      yield* tail({ after: Option.getOrUndefined(after), follow: !noFollow, show: json ? toJson : toLine }).pipe(
        Effect.provide(SourceOf.layer(config)),
        Effect.raceFirst(readerLeft),
        // An interruption is the regular end of following.
        Effect.onInterrupt(() =>
          Effect.sync(() => {
            if (!noFollow) process.exitCode = 0
          })
        )
      )
    }).pipe(SettingFlags.provide(settings))
).pipe(Command.withDescription("Show the newest events of the feed, and follow it until stopped."))
