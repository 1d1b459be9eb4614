/**
 * `controlpublish prune`: removes now the published events that the retention does not keep.
 *
 * @since 0.1.0
 */
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Retention from "../../Retention.js"
import { failure } from "../internal/CliError.js"
import * as Operating from "../internal/operating.js"
import { count } from "../internal/text.js"
import * as DatabaseSettings from "../../postgres/DatabaseSettings.js"
import * as PumpSettings from "../../PumpSettings.js"
import * as SettingFlags from "../SettingFlags.js"

/**
 * Removes published events that the retention does not keep.
 *
 * @since 0.1.0
 * @category commands
 */
export const command = Command.make(
  "prune",
  {
    settings: SettingFlags.make(DatabaseSettings.group, PumpSettings.retentionGroup),
    reason: Operating.reason.pipe(Options.withDefault("pruned from the command line")),
    json: Operating.json
  },
  ({ json, reason, settings }) =>
    Effect.gen(function* () {
      const by = Operating.by(yield* Operating.checkReason(reason))
      const keep = yield* PumpSettings.retention
      const affected = yield* Operating.operate(
        Effect.flatMap(Retention.Retention, (retention) => retention.runNow(by)).pipe(
          Effect.catchTag("RetentionOff", (error) => failure(error.message, error)),
          Effect.provide(Retention.layerManual({ keep }))
        )
      )
      yield* Console.log(json ? Operating.printJson({ affected }) : `Removed ${count(affected, "published event")}.`)
    }).pipe(SettingFlags.provide(settings))
).pipe(Command.withDescription("Remove now, in small batches, the published events that the retention does not keep."))
