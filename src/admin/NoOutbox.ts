/**
 * The services of a process that has no outbox: the sink is `nop`, and no database is opened.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { OutboxAdmin } from "../OutboxAdmin.js"
import { OutboxError } from "../OutboxStore.js"
import * as Pump from "../Pump.js"
import { Retention } from "../Retention.js"
import { layerNop, type Sink } from "../Sink.js"

const closed = Effect.fail(
  new OutboxError({ message: "The sink is nop, and no database is opened with it", retryable: false })
)

const outbox = Layer.merge(
  Layer.succeed(OutboxAdmin, {
    identity: () => closed,
    attend: () => closed,
    leave: () => closed,
    pumps: () => closed,
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

/**
 * An inert pump, and an outbox that answers every question with an error. For nodes, which mount the dashboard to show
 * their applier.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<OutboxAdmin | Pump.Pump | Retention | Sink> = Layer.merge(
  Layer.provideMerge(Pump.layerInert, layerNop),
  outbox
)
