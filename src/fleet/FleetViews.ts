/**
 * What those see who ask a fleet how far it has come. Instants are in milliseconds since the epoch, by the clock of
 * whoever received the reports; no clock of a node is in them.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { EventState } from "../OutboxViews.js"
import { Labels, ReportedState } from "./NodeReport.js"

/**
 * The states that a node reports, and `starting`: it has registered and not said where it is.
 *
 * @since 0.1.0
 * @category schemas
 */
export const NodeState = Schema.Literal("starting", ...ReportedState.literals)

/**
 * A value of the schema `NodeState`.
 *
 * @since 0.1.0
 * @category models
 */
export type NodeState = typeof NodeState.Type

/**
 * A node as it was last heard.
 *
 * @since 0.1.0
 * @category schemas
 */
export const FleetNode = Schema.Struct({
  node: Schema.String,
  kind: Schema.String,
  labels: Labels,
  /** The version of the program. */
  version: Schema.String,
  /** How often it has registered. A node that two processes report as registers again and again. */
  starts: Schema.Number,
  registeredAt: Schema.Number,
  heardAt: Schema.Number,
  /** It has been silent for longer than its interval: what follows was true when it was heard last. */
  silent: Schema.Boolean,
  state: NodeState,
  /** When it entered the state. */
  since: Schema.Number,
  /** Absent while it has not said where it is. */
  feed: Schema.optionalWith(Schema.String, { exact: true }),
  position: Schema.optionalWith(Schema.Number, { exact: true }),
  /** How many versions of what it reads it has not applied. */
  lag: Schema.optionalWith(Schema.Number, { exact: true }),
  /** For how long it has lacked an event; grows while it is silent. Absent if that is unknown. */
  lagMillis: Schema.optionalWith(Schema.Number, { exact: true }),
  /** The newest versions that it has set aside. */
  setAside: Schema.Array(Schema.Number),
  /** What holds it. */
  trouble: Schema.optionalWith(
    Schema.Struct({ message: Schema.String, version: Schema.optionalWith(Schema.Number, { exact: true }) }),
    { exact: true }
  )
}).annotations({ identifier: "FleetNode" })

/**
 * A value of the schema `FleetNode`.
 *
 * @since 0.1.0
 * @category models
 */
export type FleetNode = typeof FleetNode.Type

/**
 * Which nodes are meant. Those that match every given field; all of them without one.
 *
 * @since 0.1.0
 * @category models
 */
export interface Selection {
  /** These, registered or not. */
  readonly nodes?: ReadonlyArray<string> | undefined
  /** Those that have all of these labels. */
  readonly labels?: Labels | undefined
  readonly kind?: string | undefined
}

const counted = <Name extends string>(name: Name) =>
  Schema.Array(
    Schema.Struct({ [name]: Schema.String, nodes: Schema.Number } as { [K in Name]: typeof Schema.String } & {
      nodes: typeof Schema.Number
    })
  )

/**
 * A fleet as a whole.
 *
 * @since 0.1.0
 * @category schemas
 */
export const FleetSummary = Schema.Struct({
  at: Schema.Number,
  nodes: Schema.Number,
  /** Not heard for longer than their interval. */
  silent: Schema.Number,
  /** Heard nodes by state. */
  states: Schema.Array(Schema.Struct({ state: NodeState, nodes: Schema.Number })),
  /** Nodes that have set something aside. */
  setAside: Schema.Number,
  /** The largest lag of a node that is heard. */
  lag: Schema.Struct({ versions: Schema.Number, millis: Schema.Number }),
  /** Nodes by the feed that they read, the most first; at most 10. More than one: somebody reads another feed. */
  feeds: counted("feed"),
  /** Nodes by the version of their program, the most first; at most 20. */
  versions: counted("version"),
  /** Those that lag most, the slowest first; at most 10. */
  slowest: Schema.Array(FleetNode),
  /** Those that are halted or whose feed or database is unavailable; at most 10. */
  held: Schema.Array(FleetNode),
  /** Those that are silent, the longest first; at most 10. */
  unheard: Schema.Array(FleetNode)
}).annotations({ identifier: "FleetSummary" })

/**
 * A value of the schema `FleetSummary`.
 *
 * @since 0.1.0
 * @category models
 */
export type FleetSummary = typeof FleetSummary.Type

/**
 * A page of nodes, by name.
 *
 * @since 0.1.0
 * @category schemas
 */
export const NodePage = Schema.Struct({
  at: Schema.Number,
  nodes: Schema.Array(FleetNode),
  /** The name after which the next page begins; absent at the end. */
  next: Schema.optionalWith(Schema.String, { exact: true })
}).annotations({ identifier: "NodePage" })

/**
 * A value of the schema `NodePage`.
 *
 * @since 0.1.0
 * @category models
 */
export type NodePage = typeof NodePage.Type

/**
 * Why a node does not count as having applied an event.
 *
 * - `unregistered`: nobody has registered under this name.
 * - `starting`: it has registered and not said where it is.
 * - `otherFeed`: its position belongs to another feed.
 * - `setAside`: it has passed the event without applying it.
 * - `unclear`: it has passed the event, and has set aside so many since that its report does not say whether it was one.
 * - `silent`: it was before the event when it was heard last.
 * - `halted`, `unavailable`, `paused`, `stopped`: what holds it before the event.
 * - `behind`: it is on its way.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Why = Schema.Literal(
  "unregistered",
  "starting",
  "otherFeed",
  "setAside",
  "unclear",
  "silent",
  "halted",
  "unavailable",
  "paused",
  "stopped",
  "behind"
)

/**
 * A value of the schema `Why`.
 *
 * @since 0.1.0
 * @category models
 */
export type Why = typeof Why.Type

/**
 * A node that has not applied an event, and why.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Laggard = Schema.Struct({
  node: Schema.String,
  why: Why,
  /** Absent for a node that is not registered. */
  known: Schema.optionalWith(FleetNode, { exact: true })
}).annotations({ identifier: "Laggard" })

/**
 * A value of the schema `Laggard`.
 *
 * @since 0.1.0
 * @category models
 */
export type Laggard = typeof Laggard.Type

/**
 * How far one version has come.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Progress = Schema.Struct({
  at: Schema.Number,
  version: Schema.Number,
  /** The feed that the version belongs to. Absent if it is not known, and the nodes name several. */
  feed: Schema.optionalWith(Schema.String, { exact: true }),
  /** How many nodes are meant, those that are missing included. */
  chosen: Schema.Number,
  applied: Schema.Number,
  /** The others by reason. */
  others: Schema.Array(Schema.Struct({ why: Why, nodes: Schema.Number })),
  /** The first of the others by name. */
  laggards: Schema.Array(Laggard)
}).annotations({ identifier: "Progress" })

/**
 * A value of the schema `Progress`.
 *
 * @since 0.1.0
 * @category models
 */
export type Progress = typeof Progress.Type

/**
 * A control version, or the id of an event of the outbox.
 *
 * @since 0.1.0
 * @category models
 */
export type What = number | string

/**
 * How far something has come.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Rollout = Schema.Struct({
  at: Schema.Number,
  /** The event, if its id was given. */
  event: Schema.optionalWith(
    Schema.Struct({
      eventId: Schema.String,
      state: EventState,
      /** Why it is not published. */
      error: Schema.optionalWith(Schema.String, { exact: true })
    }),
    { exact: true }
  ),
  /** How many nodes suffice. */
  needed: Schema.Number,
  /** Whether so many have applied it. */
  done: Schema.Boolean,
  /** Absent while the event is not published. */
  progress: Schema.optionalWith(Progress, { exact: true })
}).annotations({ identifier: "Rollout" })

/**
 * A value of the schema `Rollout`.
 *
 * @since 0.1.0
 * @category models
 */
export type Rollout = typeof Rollout.Type
