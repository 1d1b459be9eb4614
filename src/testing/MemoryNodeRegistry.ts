/**
 * What the nodes of a fleet report, in memory, for tests and for fleets that run in one process.
 *
 * Nobody proves here who he is: everything that runs in the process may report for every node.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as KnownNodes from "../fleet/internal/knownNodes.js"
import { NodeRegistry, type Lowest } from "../fleet/NodeRegistry.js"
import { NodeReports, Unregistered } from "../fleet/NodeReports.js"

/**
 * Makes an empty registry.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: Effect.Effect<NodeRegistry["Type"]> = Effect.sync(() => {
  const known = new Map<string, KnownNodes.Known>()
  let tickets = 0
  return NodeRegistry.of({
    name: "memory",
    inert: false,
    register: (registration) =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        const { node } = registration
        known.set(node, KnownNodes.registered(known.get(node), registration, ++tickets, now))
        return tickets
      }),
    report: (node, ticket, report) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        const before = known.get(node)
        if (before?.ticket !== ticket) {
          return new Unregistered({ node, reason: before === undefined ? "forgotten" : "superseded" })
        }
        known.set(node, KnownNodes.reported(before, report, now))
        return Effect.void
      }),
    summary: (selection = {}) =>
      Effect.map(Clock.currentTimeMillis, (now) => KnownNodes.summary(known.values(), selection, now)),
    nodes: (query) => Effect.map(Clock.currentTimeMillis, (now) => KnownNodes.page(known.values(), query, now)),
    progress: (query) => Effect.map(Clock.currentTimeMillis, (now) => KnownNodes.progress(known.values(), query, now)),
    forget: (node) => Effect.sync(() => known.delete(node)),
    forgetSilent: (olderThan) =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        const gone = Array.from(known)
          .filter(([, { heardAt }]) => now - heardAt > Duration.toMillis(olderThan))
          .slice(0, 1_000)
          .map(([node]) => node)
        for (const node of gone) known.delete(node)
        return gone
      }),
    lowest: (feed) =>
      Effect.sync(() =>
        Array.from(known).reduce<Lowest | undefined>((lowest, [node, { last }]) => {
          if (last?.feed !== feed) return lowest
          return lowest === undefined || last.position < lowest.position ? { node, position: last.position } : lowest
        }, undefined)
      )
  })
})

/**
 * Provides an empty registry, and the port through which nodes report to it.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<NodeRegistry | NodeReports> = Layer.effectContext(
  Effect.map(make, (registry) => Context.make(NodeRegistry, registry).pipe(Context.add(NodeReports, registry)))
)
