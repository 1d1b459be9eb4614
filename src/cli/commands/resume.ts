/**
 * `controlpublish resume`: ends a pause.
 *
 * @since 0.1.0
 */
import * as PumpCommand from "../internal/pumpCommand.js"

/**
 * Ends a pause of the pump of a running service.
 *
 * @since 0.1.0
 * @category commands
 */
export const command = PumpCommand.make("resume", {
  done: (url) => `Resumed: the service at ${url} publishes.`,
  description: "End a pause of the pump of a running service."
})
