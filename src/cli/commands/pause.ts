/**
 * `controlpublish pause`: has the pump of a running service publish nothing more until it is resumed.
 *
 * @since 1.0.0
 */
import * as PumpCommand from "../internal/pumpCommand.js"

/**
 * Pauses the pump of a running service.
 *
 * @since 1.0.0
 * @category commands
 */
export const command = PumpCommand.make("pause", {
  done: (url) =>
    `Paused: the service at ${url} publishes nothing more until it is resumed or started anew. Other pumps go on.`,
  description: "Have the pump of a running service finish what is in flight and publish nothing more. Others go on."
})
