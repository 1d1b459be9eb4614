/**
 * The node of this process as the API shows it: the applier's status and the events that were set aside.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { Applier } from "../fleet/Applier.js"
import { ApplierStatus } from "../fleet/ApplierStatus.js"
import { AppliedEvents } from "../fleet/AppliedEvents.js"
import { inTime } from "./internal/inTime.js"

/** The most events that are shown. */
const shown = 20

/** The longest reason that is shown, in characters. */
const longestReason = 500

/**
 * An event that was set aside.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Aside = Schema.Struct({
  eventId: Schema.String,
  version: Schema.Number,
  reason: Schema.String,
  at: Schema.Number
}).annotations({ identifier: "Aside" })

/**
 * Empty if the process runs no applier.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Node = Schema.Struct({
  /** When this was read. */
  at: Schema.Number,
  applier: Schema.optional(ApplierStatus),
  /** How many control versions the node is behind the feed, as far as the applier knows the feed. */
  lag: Schema.optional(Schema.Number),
  /** The newest events that were set aside, at most 20. Absent if the node's database cannot be read. */
  asides: Schema.optional(Schema.Array(Aside)),
  /** Why the node's database cannot be read. */
  databaseError: Schema.optional(Schema.String)
}).annotations({ identifier: "Node" })

/**
 * The state of a node as the page shows it.
 *
 * @since 0.1.0
 * @category models
 */
export type Node = typeof Node.Type

/**
 * Reads the state of the node that the page shows.
 *
 * @since 0.1.0
 * @category models
 */
export class NodeView extends Context.Tag("controlpublish/admin/NodeView")<
  NodeView,
  { readonly read: Effect.Effect<Node> }
>() {}

const now = Effect.clockWith((clock) => clock.currentTimeMillis)

/**
 * The view of a process that runs no applier.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerNone: Layer.Layer<NodeView> = Layer.succeed(NodeView, { read: Effect.map(now, (at) => ({ at })) })

/**
 * The view of the applier of this process.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<NodeView, never, Applier | AppliedEvents> = Layer.effect(
  NodeView,
  Effect.gen(function* () {
    const applier = yield* Applier
    const applied = yield* AppliedEvents
    const asides = Effect.either(inTime(applied.asides({ limit: shown }), "The node's database"))
    return {
      read: Effect.gen(function* () {
        const status = yield* applier.status
        // An inert applier has no database.
        const found = status.state === "inert" ? Either.right([]) : yield* asides
        return {
          at: yield* now,
          applier: status,
          lag: Math.max(0, status.newest - status.position),
          ...Either.match(found, {
            onLeft: (databaseError) => ({ databaseError }),
            onRight: (asides) => ({
              asides: asides.map((aside) => ({ ...aside, reason: aside.reason.slice(0, longestReason) }))
            })
          })
        }
      })
    }
  })
)
