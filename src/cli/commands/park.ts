/**
 * `controlpublish park`: parks a pending event until it is redriven.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Mending from "../internal/mending.js"

/**
 * Parks an event.
 *
 * @since 0.1.0
 * @category commands
 */
export const command = Mending.make("park", {
  act: (admin, id, by) => Effect.as(admin.park(id, by), { affected: 1 }),
  show: (id) => [`Parked ${id}.`],
  description: "Park a pending event until it is redriven. Waits briefly for a publish of it that is in flight."
})
