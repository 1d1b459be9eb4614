/**
 * The port of those who take the reports of a fleet's nodes, and answer how far the fleet is.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { FleetSummary, NodePage, NodeState, Progress, Selection } from "./FleetViews.js"
import { ReportsUnavailable, type NodeReports } from "./NodeReports.js"

/**
 * Keeps what the nodes of a fleet reported last. Answers are aggregates, or pages of bounded size, so that they cost the
 * same for those who ask whether ten nodes report or ten thousand.
 *
 * @since 0.1.0
 * @category models
 */
export class NodeRegistry extends Context.Tag("controlpublish/NodeRegistry")<
  NodeRegistry,
  NodeReports["Type"] & {
    /** The fleet, or a part of it, as a whole. */
    readonly summary: (selection?: Selection) => Effect.Effect<FleetSummary, ReportsUnavailable>

    /** A page of nodes, by name. */
    readonly nodes: (query: NodeQuery) => Effect.Effect<NodePage, ReportsUnavailable>

    /** How far a version has come among the chosen nodes, and the first of those that have not applied it. */
    readonly progress: (query: ProgressQuery) => Effect.Effect<Progress, ReportsUnavailable>

    /** Forgets a node that is gone for good. One that still runs registers again. Tells whether it was known. */
    readonly forget: (node: string) => Effect.Effect<boolean, ReportsUnavailable>

    /** Forgets the nodes that were not heard for so long, and returns their names, at most 1,000. */
    readonly forgetSilent: (
      olderThan: Duration.DurationInput
    ) => Effect.Effect<ReadonlyArray<string>, ReportsUnavailable>

    /**
     * Up to which version every node has applied a feed: the lowest position, and whose it is. A node that has not said
     * where it is counts with its last position. `undefined` if no node reads the feed.
     */
    readonly lowest: (feed: string) => Effect.Effect<Lowest | undefined, ReportsUnavailable>
  }
>() {}

/**
 * Which nodes a page has.
 *
 * @since 0.1.0
 * @category models
 */
export interface NodeQuery {
  readonly selection?: Selection | undefined
  /** Those in this state that are heard; or those that are silent. */
  readonly state?: NodeState | "silent" | undefined
  /** At most this many, of at most 500. */
  readonly limit: number
  /** The `next` of the page before. */
  readonly after?: string | undefined
}

/**
 * What progress is asked for.
 *
 * @since 0.1.0
 * @category models
 */
export interface ProgressQuery {
  readonly version: number
  /**
   * The feed that the version belongs to. Without it the chosen nodes have to agree on one: if they name several, no node
   * counts.
   */
  readonly feed?: string | undefined
  readonly selection?: Selection | undefined
  /** At most this many laggards, of at most 500. */
  readonly limit: number
  /** The name after which the laggards begin. */
  readonly after?: string | undefined
}

/**
 * The node that is furthest back.
 *
 * @since 0.1.0
 * @category models
 */
export interface Lowest {
  readonly position: number
  readonly node: string
}

/**
 * A registry of no nodes, which refuses every registration. For services that know no fleet.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerNone: Layer.Layer<NodeRegistry> = Layer.sync(NodeRegistry, () => {
  const none = new ReportsUnavailable({ message: "This service takes no reports of nodes" })
  const closed = () => Effect.fail(none)
  return {
    name: "none",
    inert: true,
    register: closed,
    report: closed,
    summary: closed,
    nodes: closed,
    progress: closed,
    forget: closed,
    forgetSilent: closed,
    lowest: closed
  }
})
