/**
 * `controlpublish pause`: pauses the pump of a running service until it is resumed.
 *
 * @since 0.1.0
 */
import * as PumpCommand from "../internal/pumpCommand.js"

/**
 * Pauses the pump of a running service.
 *
 * @since 0.1.0
 * @category commands
 */
export const command = PumpCommand.make("pause", {
  done: (url) =>
    `Paused: the service at ${url} publishes nothing until it is resumed or restarted. Other pumps continue.`,
  description: "Pause the pump of a running service after the publishes in flight. Other pumps continue."
})
