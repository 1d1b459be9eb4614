import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Logger, LogLevel, Scope, Stream, TestClock } from "effect"
import { ControlEvent } from "../../src/index.js"
import {
  AppliedEvents,
  Applier,
  ArtifactStore,
  Handlers,
  NodeReporting,
  NodeReports,
  Source,
  type NodeReport
} from "../../src/fleet/index.js"
import * as Reporting from "../../src/fleet/internal/reporting.js"
import { MemoryAppliedEvents, MemoryNodeRegistry, MemorySource } from "../../src/testing/index.js"

/** A node whose handler is the test's, and what it sent. */
const started = (
  options: {
    readonly reporting?: Partial<NodeReporting.Options>
    readonly applier?: Applier.Options
    readonly handle?: (id: string) => Effect.Effect<void, unknown>
    readonly through?: (reports: NodeReports.NodeReports["Type"]) => Partial<NodeReports.NodeReports["Type"]>
  } = {}
) =>
  Effect.gen(function* () {
    const lines: Array<string> = []
    const sent: Array<NodeReport.Report> = []
    const logger = Logger.make(({ logLevel, message }) => {
      if (LogLevel.greaterThanEqual(logLevel, LogLevel.Info)) lines.push(String(message))
    })
    const registry = yield* MemoryNodeRegistry.make
    const changed: NodeReports.NodeReports["Type"] = { ...registry, ...options.through?.(registry) }
    const reports: NodeReports.NodeReports["Type"] = {
      ...changed,
      report: (node, ticket, report) =>
        Effect.zipRight(
          Effect.sync(() => void sent.push(report)),
          changed.report(node, ticket, report)
        )
    }
    const handlers = Handlers.make(
      [],
      {},
      { otherwise: ({ event }: Handlers.Delivered) => options.handle?.(event.event_id) ?? Effect.void }
    )
    const scope = yield* Scope.make()
    const context = yield* Layer.buildWithScope(
      NodeReporting.layer({ node: "n1", ...options.reporting }).pipe(
        Layer.provideMerge(Applier.layer(handlers, options.applier)),
        Layer.provideMerge(Layer.mergeAll(MemorySource.layer, MemoryAppliedEvents.layer, ArtifactStore.layerMemory)),
        Layer.provide(Layer.succeed(NodeReports.NodeReports, reports)),
        Layer.provide(Logger.replace(Logger.defaultLogger, logger))
      ),
      scope
    )
    yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
    const source = Context.get(context, MemorySource.MemorySource)
    const append = (...ids: ReadonlyArray<string>) =>
      Effect.flatMap(ControlEvent.makeAll(ids.map((event_id) => ({ event_id, type: "x" }))), source.append)
    const node = Effect.map(registry.nodes({ limit: 1, selection: { nodes: ["n1"] } }), ({ nodes }) => nodes[0])
    return {
      append,
      applied: Context.get(context, AppliedEvents.AppliedEvents),
      applier: Context.get(context, Applier.Applier),
      lines,
      node,
      registry,
      sent,
      source,
      stop: Scope.close(scope, Exit.void)
    }
  })

describe("NodeReporting", () => {
  it.scoped("registers, and reports where the node is", () =>
    Effect.gen(function* () {
      const { append, node } = yield* started({ reporting: { labels: { ring: "canary" }, kind: "edge", version: "7" } })
      yield* TestClock.adjust("2 seconds")
      assert.deepInclude(yield* node, {
        kind: "edge",
        version: "7",
        state: "idle",
        feed: "memory-1",
        position: 0,
        lag: 0
      })
      yield* append("a", "b")
      yield* TestClock.adjust("1 second")
      assert.deepInclude(yield* node, { state: "idle", feed: "memory-1", position: 2, lag: 0, lagMillis: 0, starts: 1 })
    })
  )

  it.scoped("reports at most once a second however much changes, and every ten seconds if nothing does", () =>
    Effect.gen(function* () {
      const { append, node, sent } = yield* started()
      yield* TestClock.adjust("1 second")
      const before = sent.length
      for (let index = 0; index < 100; index++) {
        yield* append(`e${index}`)
        yield* TestClock.adjust("100 millis")
      }
      const busy = sent.length - before
      assert.isAtMost(busy, 11)
      assert.isAtLeast(busy, 9)
      yield* TestClock.adjust("2 seconds")
      assert.deepInclude(yield* node, { position: 100, lag: 0 })
      const quiet = sent.length
      yield* TestClock.adjust("1 minute")
      assert.isAtMost(Math.abs(sent.length - quiet - 6), 1)
      // It is heard as long as it runs.
      assert.isFalse((yield* node)?.silent)
    })
  )

  it.scoped("says nothing of a position before it has read its own", () =>
    Effect.gen(function* () {
      const one = yield* started()
      yield* one.append("a", "b", "c")
      yield* TestClock.adjust("5 seconds")
      yield* one.stop
      assert.isTrue(one.sent.filter(({ cursor }) => cursor !== undefined).every(({ cursor }) => cursor!.newest >= 0))
      const [first] = one.sent
      assert.isDefined(first?.cursor, "it was known at once")
      // A node whose database does not answer.
      const hanging = Layer.succeed(AppliedEvents.AppliedEvents, {
        ...(yield* MemoryAppliedEvents.make),
        cursor: Effect.never
      })
      const registry = yield* MemoryNodeRegistry.make
      yield* Layer.build(
        NodeReporting.layer({ node: "hangs" }).pipe(
          Layer.provide(Applier.layer(Handlers.make([], {}, { otherwise: "skip" }))),
          Layer.provide([MemorySource.layer, hanging, ArtifactStore.layerMemory]),
          Layer.provide(Layer.succeed(NodeReports.NodeReports, registry))
        )
      )
      yield* TestClock.adjust("15 seconds")
      const { nodes } = yield* registry.nodes({ limit: 1 })
      assert.deepInclude(nodes[0], { node: "hangs", silent: false })
      assert.notProperty(nodes[0], "position")
    })
  )

  it.scoped("says what halts the node, and for how long it has lagged", () =>
    Effect.gen(function* () {
      let broken = true
      const { append, node } = yield* started({
        handle: (id) => (broken && id === "b" ? Effect.fail("no such table") : Effect.void)
      })
      yield* TestClock.adjust("2 seconds")
      yield* append("a", "b", "c")
      yield* TestClock.adjust("1 minute")
      const halted = yield* node
      assert.deepInclude(halted, { state: "halted", position: 1, lag: 2, silent: false })
      assert.deepInclude(halted?.trouble, { version: 2 })
      assert.match(halted!.trouble!.message, /no such table/)
      assert.isAtLeast(halted!.lagMillis!, 58_000)
      assert.isAtMost(halted!.lagMillis!, 61_000)
      broken = false
      yield* TestClock.adjust("1 minute")
      assert.deepInclude(yield* node, { state: "idle", position: 3, lag: 0, lagMillis: 0 })
      assert.notProperty(yield* node, "trouble")
    })
  )

  it.scoped("does not report as applied what it sets aside, also if it cannot read what that was", () =>
    Effect.gen(function* () {
      const { append, applied, node, registry } = yield* started({
        applier: { cannotApply: "setAside" },
        handle: (id) => (id === "b" ? new Handlers.CannotApply({ reason: "never" }) : Effect.void)
      })
      yield* TestClock.adjust("2 seconds")
      yield* append("a", "b", "c")
      yield* TestClock.adjust("2 seconds")
      assert.deepInclude(yield* node, { position: 3, setAside: [2] })
      const of = (version: number) => Effect.map(registry.progress({ version, limit: 1 }), ({ applied }) => applied)
      assert.deepStrictEqual([yield* of(1), yield* of(2), yield* of(3)], [1, 0, 1])
      assert.lengthOf(yield* applied.asides(), 1)
    })
  )

  it.scoped("never slows or stops an applier: reports that hang, fail or die", () =>
    Effect.forEach(
      [
        Effect.never,
        Effect.uninterruptible(Effect.never),
        Effect.die("broken"),
        new NodeReports.ReportsUnavailable({ message: "gone" })
      ] as ReadonlyArray<Effect.Effect<never, NodeReports.ReportsUnavailable>>,
      (broken) =>
        Effect.scoped(
          Effect.gen(function* () {
            const { append, applier, lines, stop } = yield* started({
              through: () => ({ register: () => broken, report: () => broken })
            })
            for (let index = 0; index < 30; index++) {
              yield* append(`e${index}`)
              yield* TestClock.adjust("1 second")
              assert.deepInclude(yield* applier.status, { position: index + 1, state: "idle", failures: 0 })
            }
            assert.lengthOf(
              lines.filter((line) => line.startsWith("This node cannot report how far it is, and goes on applying")),
              1,
              "said once"
            )
            const stopping = yield* Effect.fork(stop)
            yield* TestClock.adjust("2 seconds")
            assert.strictEqual((yield* stopping.poll)._tag, "Some", "a stop waits a second at most")
          })
        ),
      { discard: true }
    )
  )

  it.scoped("reports again when the receiver is back, and says so", () =>
    Effect.gen(function* () {
      let broken = true
      const { append, lines, node } = yield* started({
        through: ({ report }) => ({
          report: (...args) =>
            Effect.suspend(() =>
              broken ? Effect.fail(new NodeReports.ReportsUnavailable({ message: "gone" })) : report(...args)
            )
        })
      })
      yield* append("a")
      yield* TestClock.adjust("1 minute")
      assert.isTrue((yield* node)?.silent)
      broken = false
      yield* TestClock.adjust("15 seconds")
      assert.deepInclude(yield* node, { silent: false, position: 1 })
      assert.deepStrictEqual(lines.slice(-1), ["This node reports again (memory)"])
    })
  )

  it.scoped("registers again when it was forgotten, and warns of a second process of its name", () =>
    Effect.gen(function* () {
      const { append, lines, node, registry } = yield* started()
      yield* append("a")
      yield* TestClock.adjust("12 seconds")
      yield* registry.forget("n1")
      yield* TestClock.adjust("11 seconds")
      assert.deepInclude(yield* node, { position: 1, starts: 1 })
      const other = { node: "n1", kind: "x", labels: {}, version: "1", silentAfterMillis: 30_000 }
      yield* registry.register(other)
      yield* TestClock.adjust("11 seconds")
      assert.deepInclude(yield* node, { position: 1, kind: "node", starts: 3 })
      assert.deepStrictEqual(lines, [])
      yield* registry.register(other)
      yield* TestClock.adjust("11 seconds")
      assert.lengthOf(lines, 1)
      assert.match(lines[0]!, /two processes report as this node/)
    })
  )

  it.effect("begins a new registration when the node is set back", () =>
    Effect.gen(function* () {
      const registry = yield* MemoryNodeRegistry.make
      const applied = yield* MemoryAppliedEvents.make
      const source = yield* Effect.provide(Source.Source, MemorySource.layer)
      const registration = { node: "n1", kind: "x", labels: {}, version: "1", silentAfterMillis: 30_000 }
      const reporter = Reporting.make({ applied, reports: registry, source }, registration)
      const status = { since: 0, source: "memory", failures: 0, applied: 0, skipped: 0, setAside: 0 }
      const at = (position: number) =>
        reporter.report({ ...status, state: "idle", feed: "memory-1", position, newest: 3 })
      yield* at(3)
      yield* at(1)
      const { nodes } = yield* registry.nodes({ limit: 1 })
      assert.deepInclude(nodes[0], { position: 1, starts: 2 })
    })
  )

  it.scoped("says that it stops", () =>
    Effect.gen(function* () {
      const { append, node, stop } = yield* started()
      yield* append("a")
      yield* TestClock.adjust("12 seconds")
      yield* stop
      assert.deepInclude(yield* node, { state: "stopping", position: 1 })
    })
  )

  it.scoped("does nothing where reports go nowhere", () =>
    Effect.gen(function* () {
      const nowhere: NodeReports.NodeReports["Type"] = {
        name: "nop",
        inert: true,
        register: () => Effect.die("asked"),
        report: () => Effect.die("asked")
      }
      const context = yield* Layer.build(
        NodeReporting.layer({ node: "n1" }).pipe(
          Layer.provideMerge(Applier.layer(Handlers.make([], {}, { otherwise: "skip" }))),
          Layer.provide([MemorySource.layer, MemoryAppliedEvents.layer, ArtifactStore.layerMemory]),
          Layer.provide(Layer.succeed(NodeReports.NodeReports, nowhere))
        )
      )
      yield* TestClock.adjust("1 minute")
      const status = yield* Stream.runHead(Context.get(context, Applier.Applier).changes)
      assert.strictEqual(status._tag, "Some")
    })
  )
})
