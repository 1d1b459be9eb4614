/**
 * `controlpublish discard`: permanently removes an unpublished event from the outbox.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Mending from "../internal/mending.js"

/**
 * Removes an unpublished event from the outbox.
 *
 * @since 0.1.0
 * @category commands
 */
export const command = Mending.make("discard", {
  act: (admin, id, by) => Effect.as(admin.discard(id, by), { affected: 1 }),
  show: (id) => [`Discarded ${id}.`],
  description: "Permanently remove an unpublished event from the outbox. The audit log keeps its whole row."
})
