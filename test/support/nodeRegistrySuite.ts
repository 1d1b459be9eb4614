import { assert, it } from "@effect/vitest"
import { Effect, Struct, type Layer } from "effect"
import { NodeRegistry, type NodeReport } from "../../src/fleet/index.js"

export const registration = (node: string, more: Partial<NodeReport.Registration> = {}): NodeReport.Registration => ({
  node,
  kind: "edge",
  labels: { ring: "stable" },
  version: "1.0.0",
  silentAfterMillis: 30_000,
  ...more
})

export const report = (
  sequence: number,
  position: number,
  more: Partial<Omit<NodeReport.Report, "cursor">> & Partial<NonNullable<NodeReport.Report["cursor"]>> = {}
): NodeReport.Report => {
  const { asides, behindForMillis = 0, feed = "f", newest = position, through, ...rest } = more
  return {
    sequence,
    state: "idle",
    stateForMillis: 0,
    cursor: {
      feed,
      position,
      newest,
      behindForMillis,
      asides: asides ?? { versions: [], completeFrom: 0 },
      ...(through === undefined ? {} : { through })
    },
    ...rest
  }
}

/** A node that has registered and reported once. */
export const joined = (
  node: string,
  position: number,
  more: { readonly who?: Partial<NodeReport.Registration>; readonly says?: Parameters<typeof report>[2] } = {}
) =>
  Effect.gen(function* () {
    const registry = yield* NodeRegistry.NodeRegistry
    const ticket = yield* registry.register(registration(node, more.who))
    yield* registry.report(node, ticket, report(1, position, more.says))
    return ticket
  })

/** What every registry promises. `pass` lets time pass for its clock. */
export const nodeRegistrySuite = <R, E>(options: {
  readonly layer: Layer.Layer<NodeRegistry.NodeRegistry | R, E>
  readonly pass: (millis: number) => Effect.Effect<void, never, R>
  /** Whether the registry's clock stands still between two `pass`. */
  readonly exact: boolean
}) => {
  const test = (name: string, body: Effect.Effect<void, unknown, NodeRegistry.NodeRegistry | R>) =>
    it.scopedLive(name, () => Effect.provide(body, options.layer))
  const run = options.exact
    ? (name: string, body: Parameters<typeof test>[1]) => it.scoped(name, () => Effect.provide(body, options.layer))
    : test

  const at = (node: string) =>
    Effect.gen(function* () {
      const registry = yield* NodeRegistry.NodeRegistry
      const { nodes } = yield* registry.nodes({ limit: 1, selection: { nodes: [node] } })
      return nodes[0]
    })

  run(
    "knows no position of a node that has registered, and the last one of a node that has reported",
    Effect.gen(function* () {
      const registry = yield* NodeRegistry.NodeRegistry
      const ticket = yield* registry.register(registration("n1", { labels: { ring: "canary", region: "eu" } }))
      const starting = yield* at("n1")
      assert.deepInclude(starting, {
        node: "n1",
        kind: "edge",
        state: "starting",
        starts: 1,
        silent: false,
        setAside: []
      })
      assert.deepStrictEqual(starting?.labels, { ring: "canary", region: "eu" })
      assert.notProperty(starting, "position")
      yield* registry.report("n1", ticket, report(1, 5, { newest: 9, state: "applying", behindForMillis: 2_000 }))
      const found = yield* at("n1")
      assert.deepInclude(found, { state: "applying", feed: "f", position: 5, lag: 4 })
      assert.isAtLeast(found!.lagMillis!, 2_000)
      assert.isBelow(found!.lagMillis!, 12_000)
      yield* registry.report("n1", ticket, report(2, 9))
      assert.deepInclude(yield* at("n1"), { position: 9, lag: 0, lagMillis: 0 })
    })
  )

  run(
    "takes no late, doubled or lower report of a registration",
    Effect.gen(function* () {
      const registry = yield* NodeRegistry.NodeRegistry
      const ticket = yield* joined("n1", 5)
      yield* registry.report("n1", ticket, report(3, 8))
      for (const sequence of [2, 3, 1]) {
        yield* registry.report("n1", ticket, report(sequence, 9, { state: "halted" }))
      }
      assert.deepInclude(yield* at("n1"), { position: 8, state: "idle" })
      // A later report with a lower position contradicts the ones before.
      yield* registry.report("n1", ticket, report(4, 2, { state: "halted", trouble: { message: "no", version: 9 } }))
      assert.deepInclude(yield* at("n1"), { position: 8, state: "halted", trouble: { message: "no", version: 9 } })
      // One that says nothing of the position leaves it.
      yield* registry.report("n1", ticket, Struct.omit(report(5, 0, { state: "unavailable" }), "cursor"))
      assert.deepInclude(yield* at("n1"), { position: 8, state: "unavailable" })
    })
  )

  run(
    "takes a lower position of a node that has registered again, and nothing that its earlier start says",
    Effect.gen(function* () {
      const registry = yield* NodeRegistry.NodeRegistry
      const first = yield* joined("n1", 8)
      const second = yield* registry.register(registration("n1"))
      assert.isAbove(second, first)
      const lateError = yield* Effect.flip(registry.report("n1", first, report(9, 99)))
      assert.deepInclude(lateError, { _tag: "Unregistered", reason: "superseded" })
      assert.notProperty(yield* at("n1"), "position", "it may have been set back")
      yield* registry.report("n1", second, report(1, 3))
      assert.deepInclude(yield* at("n1"), { position: 3, starts: 2 })
      yield* Effect.flip(registry.report("n1", first, report(10, 99)))
      assert.strictEqual((yield* at("n1"))?.position, 3)
      // A copy of the first registration that comes late: the node learns of it, and registers again.
      yield* registry.register(registration("n1"))
      assert.notProperty(yield* at("n1"), "position")
      assert.deepInclude(yield* Effect.flip(registry.report("n1", second, report(2, 4))), { reason: "superseded" })
    })
  )

  run(
    "forgets nodes, and takes no report of one that it forgot",
    Effect.gen(function* () {
      const registry = yield* NodeRegistry.NodeRegistry
      const ticket = yield* joined("n1", 8)
      assert.isTrue(yield* registry.forget("n1"))
      assert.isFalse(yield* registry.forget("n1"))
      assert.deepInclude(yield* Effect.flip(registry.report("n1", ticket, report(2, 9))), { reason: "forgotten" })
      assert.isUndefined(yield* at("n1"))
      // What was underway before it was forgotten belongs to no later registration.
      const later = yield* registry.register(registration("n1"))
      assert.isAbove(later, ticket)
      yield* Effect.flip(registry.report("n1", ticket, report(3, 9)))
      yield* joined("n2", 8)
      yield* options.pass(2_000)
      yield* joined("n3", 8)
      assert.deepStrictEqual(Array.from(yield* registry.forgetSilent("1 second")).sort(), ["n1", "n2"])
      assert.isDefined(yield* at("n3"))
    })
  )

  run(
    "says who is silent, and counts its last position as a past one",
    Effect.gen(function* () {
      const registry = yield* NodeRegistry.NodeRegistry
      yield* joined("quiet", 8, { who: { silentAfterMillis: 1_000 } })
      yield* joined("loud", 8)
      yield* options.pass(1_500)
      const found = yield* at("quiet")
      assert.deepInclude(found, { silent: true, position: 8, lag: 0 })
      assert.isAtLeast(found!.lagMillis!, 1_400, "since when it may lack something")
      const summary = yield* registry.summary()
      assert.deepInclude(summary, { nodes: 2, silent: 1, states: [{ state: "idle", nodes: 1 }] })
      assert.deepStrictEqual(
        summary.unheard.map(({ node }) => node),
        ["quiet"]
      )
      assert.deepStrictEqual(
        (yield* registry.nodes({ limit: 9, state: "silent" })).nodes.map(({ node }) => node),
        ["quiet"]
      )
      assert.deepStrictEqual(
        (yield* registry.nodes({ limit: 9, state: "idle" })).nodes.map(({ node }) => node),
        ["loud"]
      )
      // It had applied 8 when it was heard; whether it has 9, nobody knows.
      assert.strictEqual((yield* registry.progress({ version: 8, feed: "f", limit: 9 })).applied, 2)
      const later = yield* registry.progress({ version: 9, feed: "f", limit: 9 })
      assert.deepStrictEqual(
        later.laggards.map(({ node, why }) => [node, why]),
        [
          ["loud", "behind"],
          ["quiet", "silent"]
        ]
      )
    })
  )

  run(
    "tells for each node why a version has not arrived there",
    Effect.gen(function* () {
      const registry = yield* NodeRegistry.NodeRegistry
      yield* joined("applied", 20)
      yield* joined("exactly", 10)
      yield* joined("aside", 20, { says: { asides: { versions: [12, 10], completeFrom: 0 } } })
      yield* joined("many", 20, { says: { asides: { versions: [19, 18], completeFrom: 18 } } })
      yield* joined("other", 20, { says: { feed: "g" } })
      yield* registry.register(registration("starting"))
      for (const state of ["halted", "unavailable", "paused", "stopping", "stopped", "idle", "applying"] as const) {
        yield* joined(state, 9, { says: { state } })
      }
      // Of its part of the feed it has everything up to 15, though the last event of it was 3.
      yield* joined("part", 3, { says: { through: 15 } })
      const progress = yield* registry.progress({ version: 10, feed: "f", limit: 100 })
      assert.deepStrictEqual(Object.fromEntries(progress.laggards.map(({ node, why }) => [node, why])), {
        applying: "behind",
        aside: "setAside",
        halted: "halted",
        idle: "behind",
        many: "unclear",
        other: "otherFeed",
        paused: "paused",
        starting: "starting",
        stopped: "stopped",
        stopping: "stopped",
        unavailable: "unavailable"
      })
      assert.deepInclude(progress, { chosen: 14, applied: 3, feed: "f", version: 10 })
      assert.deepStrictEqual(
        progress.others.reduce((sum, { nodes }) => sum + nodes, 0),
        11
      )
      assert.deepStrictEqual((yield* at("part"))?.lag, 0, "the lag of a reader of a part is its own")
      // Pages by name.
      const first = yield* registry.progress({ version: 10, feed: "f", limit: 2 })
      assert.deepStrictEqual(
        first.laggards.map(({ node }) => node),
        ["applying", "aside"]
      )
      const rest = yield* registry.progress({ version: 10, feed: "f", limit: 2, after: "aside" })
      assert.deepStrictEqual(
        rest.laggards.map(({ node }) => node),
        ["halted", "idle"]
      )
      assert.strictEqual(rest.applied, 3, "the counts are of all")
    })
  )

  run(
    "counts no node while it is unknown which of several feeds is meant",
    Effect.gen(function* () {
      const registry = yield* NodeRegistry.NodeRegistry
      yield* joined("n1", 10)
      yield* joined("n2", 10)
      assert.deepInclude(yield* registry.progress({ version: 10, limit: 9 }), { applied: 2, feed: "f" })
      yield* joined("n3", 10, { says: { feed: "g" } })
      const unclear = yield* registry.progress({ version: 10, limit: 9 })
      assert.strictEqual(unclear.applied, 0)
      assert.notProperty(unclear, "feed")
      const { feeds } = yield* registry.summary()
      assert.deepStrictEqual(feeds, [
        { feed: "f", nodes: 2 },
        { feed: "g", nodes: 1 }
      ])
    })
  )

  run(
    "chooses nodes by name, labels and kind",
    Effect.gen(function* () {
      const registry = yield* NodeRegistry.NodeRegistry
      yield* joined("a", 10, { who: { labels: { ring: "canary", region: "eu" } } })
      yield* joined("b", 9, { who: { labels: { ring: "canary", region: "us" } } })
      yield* joined("c", 10, { who: { kind: "core" } })
      const of = (selection: NodeRegistry.ProgressQuery["selection"]) =>
        Effect.map(registry.progress({ version: 10, feed: "f", limit: 9, selection }), ({ applied, chosen }) => [
          applied,
          chosen
        ])
      assert.deepStrictEqual(yield* of({}), [2, 3])
      assert.deepStrictEqual(yield* of({ labels: { ring: "canary" } }), [1, 2])
      assert.deepStrictEqual(yield* of({ labels: { ring: "canary", region: "eu" } }), [1, 1])
      assert.deepStrictEqual(yield* of({ labels: { region: "mars" } }), [0, 0])
      assert.deepStrictEqual(yield* of({ kind: "core" }), [1, 1])
      assert.deepStrictEqual(yield* of({ nodes: ["a", "zzz", "zzz"] }), [1, 2])
      assert.deepStrictEqual(yield* of({ nodes: [] }), [0, 0])
      const { laggards } = yield* registry.progress({ version: 1, feed: "f", limit: 9, selection: { nodes: ["zzz"] } })
      assert.deepStrictEqual(laggards, [{ node: "zzz", why: "unregistered" }])
      assert.strictEqual((yield* registry.summary({ kind: "core" })).nodes, 1)
    })
  )

  run(
    "sums up, and lists the slowest and the held ones",
    Effect.gen(function* () {
      const registry = yield* NodeRegistry.NodeRegistry
      for (const lag of [1, 2, 3]) {
        const says = { newest: 10, state: "applying", behindForMillis: lag * 60_000 } as const
        yield* joined(`n${lag}`, 10 - lag, { says, who: { version: `1.${lag % 2}` } })
      }
      const trouble = { message: "no such table", version: 5 }
      yield* joined("stuck", 4, { says: { state: "halted", newest: 10, behindForMillis: 240_000, trouble } })
      yield* joined("new", 0, { says: { asides: { versions: [1], completeFrom: 0 } } })
      const summary = yield* registry.summary()
      assert.deepInclude(summary, { nodes: 5, silent: 0, setAside: 1 })
      assert.deepStrictEqual(summary.states, [
        { state: "applying", nodes: 3 },
        { state: "halted", nodes: 1 },
        { state: "idle", nodes: 1 }
      ])
      assert.strictEqual(summary.lag.versions, 6)
      assert.isAtLeast(summary.lag.millis, 240_000)
      assert.isBelow(summary.lag.millis, 300_000)
      assert.deepStrictEqual(
        summary.slowest.map(({ node }) => node),
        ["stuck", "n3", "n2", "n1"]
      )
      assert.deepStrictEqual(
        summary.held.map(({ node, trouble }) => [node, trouble]),
        [["stuck", trouble]]
      )
      assert.deepStrictEqual(
        summary.versions,
        [
          { version: "1.1", nodes: 2 },
          { version: "1.0.0", nodes: 2 },
          { version: "1.0", nodes: 1 }
        ].sort((one, other) => other.nodes - one.nodes || (one.version < other.version ? -1 : 1))
      )
      const first = yield* registry.nodes({ limit: 2 })
      assert.deepStrictEqual([first.nodes.map(({ node }) => node), first.next], [["n1", "n2"], "n2"])
      const last = yield* registry.nodes({ limit: 9, after: "n2" })
      assert.deepStrictEqual(
        last.nodes.map(({ node }) => node),
        ["n3", "new", "stuck"]
      )
      assert.notProperty(last, "next")
    })
  )

  run(
    "keeps for how long a node has lacked something over its restarts",
    Effect.gen(function* () {
      const registry = yield* NodeRegistry.NodeRegistry
      yield* joined("n1", 10)
      yield* options.pass(1_500)
      const ticket = yield* registry.register(registration("n1"))
      const cursor = Struct.omit(report(1, 10, { newest: 12 }).cursor!, "behindForMillis")
      yield* registry.report("n1", ticket, { sequence: 1, state: "applying", stateForMillis: 0, cursor })
      assert.isAtLeast((yield* at("n1"))!.lagMillis!, 1_400)
      // Of a new node nobody knows.
      const fresh = yield* registry.register(registration("n2"))
      yield* registry.report("n2", fresh, { sequence: 1, state: "applying", stateForMillis: 0, cursor })
      assert.notProperty(yield* at("n2"), "lagMillis")
      assert.strictEqual((yield* at("n2"))?.lag, 2)
    })
  )

  run(
    "knows who is furthest back, also while it restarts",
    Effect.gen(function* () {
      const registry = yield* NodeRegistry.NodeRegistry
      assert.isUndefined(yield* registry.lowest("f"))
      yield* joined("n1", 10)
      yield* joined("n2", 4)
      yield* joined("n3", 1, { says: { feed: "g" } })
      assert.deepStrictEqual(yield* registry.lowest("f"), { node: "n2", position: 4 })
      yield* registry.register(registration("n2"))
      assert.deepStrictEqual(yield* registry.lowest("f"), { node: "n2", position: 4 })
    })
  )
}
