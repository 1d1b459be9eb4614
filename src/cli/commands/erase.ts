/**
 * `controlpublish erase`: replaces the payload of a published or discarded event by a marker.
 *
 * @since 0.1.0
 */
import * as Mending from "../internal/mending.js"

/**
 * Erases the payload of a published or discarded event.
 *
 * @since 0.1.0
 * @category commands
 */
export const command = Mending.make("erase", {
  act: (admin, id, by) => admin.erase(id, by),
  show: (id, { remains }) => [`Erased the payload of ${id}.`, ...remains],
  description:
    "Erase the payload of a published or a discarded event from the outbox. The feed and the nodes still have it."
})
