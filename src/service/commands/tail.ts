/**
 * `controlpublish tail`: follows the feed.
 *
 * @since 1.0.0
 */
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Stream from "effect/Stream"
import * as ControlEvent from "../../ControlEvent.js"
import { Source, type FeedEvent } from "../../fleet/Source.js"
import { usage } from "../internal/CliError.js"
import * as SourceOf from "../internal/source.js"
import { oneLine } from "../internal/text.js"
import * as ServiceConfig from "../ServiceConfig.js"

/** The event with its version, or what is there instead. */
const withVersion = ({ text, version }: FeedEvent): object => {
  const value = Either.getOrUndefined(ControlEvent.parse(text))
  return typeof value === "object" && value !== null
    ? { ...value, control_version: version }
    : { control_version: version, invalid: text }
}

const toJson = (event: FeedEvent): string => JSON.stringify(withVersion(event))

const show = (event: FeedEvent): string => {
  const fields = withVersion(event) as Readonly<Record<string, unknown>>
  const text = (name: string) => {
    const value = fields[name]
    return value === undefined ? "-" : oneLine(typeof value === "string" ? value : JSON.stringify(value))
  }
  const stack = fields.stack_id === undefined ? "" : ` ${text("stack_id")}@${text("version")}`
  return "invalid" in fields
    ? `${String(event.version).padStart(8)}  is no control event`
    : `${String(event.version).padStart(8)}  ${text("created_at").padEnd(24)}  ${text("type").padEnd(24)}  ${text("tenant_id")}${stack}  ${text("event_id")}`
}

/**
 * @since 1.0.0
 * @category commands
 */
export const command = Command.make(
  "tail",
  {
    ...ServiceConfig.sourceFlags,
    after: Options.integer("after").pipe(
      Options.withDescription("Begin after this control version; default the newest 10 events"),
      Options.optional
    ),
    noFollow: Options.boolean("no-follow").pipe(Options.withDescription("End with the newest event")),
    json: Options.boolean("json").pipe(Options.withDescription("Print each event as a line of JSON, for scripts"))
  },
  ({ after, json, noFollow, ...flags }) =>
    Effect.gen(function* () {
      const config = yield* ServiceConfig.source
      if (config._tag === "nop") return yield* usage("set FEED_SOURCE (--source) to file or jetstream: there is no feed to follow")
      yield* Effect.gen(function* () {
        const source = yield* Source
        const { newest } = yield* source.look
        const from = after._tag === "Some" ? after.value : Math.max(newest - 10, 0)
        if (from < 0) return yield* usage("--after: valid is an integer from 0")
        if (noFollow && from >= newest) return
        const events = source.events(from)
        yield* (noFollow ? Stream.takeUntil(events, ({ version }) => version >= newest) : events).pipe(
          Stream.runForEach((event) => Console.log(json ? toJson(event) : show(event)))
        )
      }).pipe(Effect.provide(SourceOf.layer(config)))
    }).pipe(ServiceConfig.withFlags(flags))
).pipe(Command.withDescription("Follow the feed."))
