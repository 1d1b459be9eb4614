/**
 * `controlpublish discard`: takes an event that is not published out of the outbox for good.
 *
 * @since 1.0.0
 */
import * as Mending from "../internal/mending.js"

/**
 * @since 1.0.0
 * @category commands
 */
export const command = Mending.make("discard", {
  done: "Discarded",
  description: "Take an event that is not published out of the outbox for good. The audit keeps its whole row."
})
