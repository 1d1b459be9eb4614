/**
 * `controlpublish prune`: removes now the published events that the retention does not keep.
 *
 * @since 1.0.0
 */
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Retention from "../../Retention.js"
import { failure } from "../internal/CliError.js"
import * as Operating from "../internal/operating.js"
import { count } from "../internal/text.js"
import * as ServiceConfig from "../ServiceConfig.js"

/**
 * @since 1.0.0
 * @category commands
 */
export const command = Command.make(
  "prune",
  {
    ...ServiceConfig.databaseFlags,
    ...ServiceConfig.retentionFlags,
    reason: Operating.reason.pipe(Options.withDefault("pruned from the command line")),
    json: Operating.json
  },
  ({ json, reason, ...flags }) =>
    Effect.gen(function* () {
      const by = Operating.by(yield* Operating.checkReason(reason))
      const keep = yield* ServiceConfig.retention
      const affected = yield* Operating.operate(
        Effect.flatMap(Retention.Retention, (retention) => retention.runNow(by)).pipe(
          Effect.catchTag("RetentionOff", (error) => failure(error.message, error)),
          Effect.provide(Retention.layerManual({ keep }))
        )
      )
      yield* Console.log(json ? Operating.printJson({ affected }) : `Removed ${count(affected, "published event")}.`)
    }).pipe(ServiceConfig.withFlags(flags))
).pipe(Command.withDescription("Remove now the published events that the retention does not keep, a little at a time."))
