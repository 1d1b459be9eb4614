import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { OutboxAdmin } from "../../OutboxAdmin.js"
import { OutboxError } from "../../OutboxStore.js"
import { Retention } from "../../Retention.js"

const closed = Effect.fail(
  new OutboxError({ message: "The sink is nop, and no database is opened with it", retryable: false })
)

/** What can be asked of an outbox that nobody opens. */
export const layer: Layer.Layer<OutboxAdmin | Retention> = Layer.merge(
  Layer.succeed(OutboxAdmin, {
    overview: () => closed,
    events: () => closed,
    event: () => closed,
    payload: () => closed,
    redrive: () => closed,
    park: () => closed,
    discard: () => closed,
    erase: () => closed,
    record: () => closed,
    audit: () => closed,
    prune: () => closed
  }),
  Layer.succeed(Retention, { description: "none: the sink is nop", runNow: () => closed })
)
