import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Logger, Random, Scope, TestClock } from "effect"
import { ControlEvent } from "../../src/index.js"
import {
  AppliedEvents,
  Applier,
  ArtifactStore,
  Fleet,
  Handlers,
  NodeRegistry,
  NodeReporting,
  NodeReports,
  Source
} from "../../src/fleet/index.js"
import * as NoOutbox from "../../src/admin/NoOutbox.js"
import { MemoryAppliedEvents, MemoryNodeRegistry, MemorySource } from "../../src/testing/index.js"

const nodes = 200

/** What is wrong with the first twenty, five of each. */
const kinds = ["slow", "halted", "restarted", "silent"] as const
type Kind = (typeof kinds)[number] | "well"
const kindOf = (index: number): Kind => kinds[Math.floor(index / 5)] ?? "well"

const nameOf = (index: number) => `n${String(index).padStart(3, "0")}`

/** The version that halted nodes cannot apply. */
const fatal = 6

interface Simulated {
  readonly kind: Kind
  /** Its own table. */
  applied: AppliedEvents.AppliedEvents["Type"]
  scope: Scope.CloseableScope
}

describe("A fleet of 200 nodes, of which 20 are slow, halted, restarted or silent", () => {
  it.scoped(
    "is answered truly at each moment, while reports are lost, late and doubled",
    () =>
      Effect.gen(function* () {
        const registry = yield* MemoryNodeRegistry.make
        const feed = yield* Layer.build(MemorySource.layer)
        const source = Context.get(feed, MemorySource.MemorySource)
        let cutOff = false
        let lossy = true

        /** Reports to the registry, over a network that loses, doubles and delays them. */
        const networkOf = (kind: Kind): NodeReports.NodeReports["Type"] => {
          let late: Effect.Effect<void, unknown> = Effect.void
          return {
            ...registry,
            register: (registration) =>
              kind === "silent" && cutOff
                ? new NodeReports.ReportsUnavailable({ message: "cut off" })
                : registry.register(registration),
            report: (...args) =>
              Effect.gen(function* () {
                if (kind === "silent" && cutOff)
                  return yield* new NodeReports.ReportsUnavailable({ message: "cut off" })
                const fate = yield* Random.nextIntBetween(0, 10)
                if (fate === 0 && lossy) return
                const before = late
                late = registry.report(...args)
                yield* registry.report(...args)
                if (fate <= 3) yield* registry.report(...args)
                if (fate >= 6) yield* Effect.ignore(before)
              })
          }
        }

        const start = (index: number, applied: AppliedEvents.AppliedEvents["Type"]) =>
          Effect.gen(function* () {
            const kind = kindOf(index)
            const handlers = Handlers.make(
              [],
              {},
              {
                otherwise: ({ event }: Handlers.Delivered) =>
                  kind === "slow"
                    ? Effect.sleep("3 seconds")
                    : kind === "halted" && event.control_version === fatal
                      ? Effect.fail("no such table")
                      : Effect.void
              }
            )
            const scope = yield* Scope.make()
            yield* Layer.buildWithScope(
              NodeReporting.layer({ node: nameOf(index), labels: { kind }, every: "5 seconds" }).pipe(
                Layer.provide(Applier.layer(handlers)),
                Layer.provide([
                  Layer.succeedContext(feed),
                  Layer.succeed(AppliedEvents.AppliedEvents, applied),
                  Layer.succeed(NodeReports.NodeReports, networkOf(kind)),
                  ArtifactStore.layerMemory
                ]),
                Layer.provide(Logger.remove(Logger.defaultLogger))
              ),
              scope
            )
            return { kind, applied, scope } satisfies Simulated
          })

        const fleet: Array<Simulated> = []
        for (let index = 0; index < nodes; index++) {
          fleet.push(yield* start(index, yield* MemoryAppliedEvents.make))
        }
        yield* Effect.addFinalizer(() =>
          Effect.forEach(fleet, ({ scope }) => Scope.close(scope, Exit.void), { concurrency: "unbounded" })
        )
        const service = yield* Fleet.make().pipe(
          Effect.provideService(NodeRegistry.NodeRegistry, registry),
          Effect.provideService(Source.Source, Context.get(feed, Source.Source)),
          Effect.provide(NoOutbox.layer)
        )
        const truth = Effect.map(
          Effect.forEach(fleet, ({ applied }) => applied.cursor),
          (cursors) => new Map(cursors.map(({ position }, index) => [nameOf(index), position]))
        )

        let appended = 0
        let moments = 0
        /** Whoever counts has it in its own table, and the view is never ahead of a table. */
        const compare = Effect.gen(function* () {
          moments++
          const own = yield* truth
          const { nodes: seen } = yield* service.nodes({ limit: 500 })
          for (const { node, position = 0 } of seen) {
            assert.isAtMost(position, own.get(node)!, `${node} is shown ahead of its table`)
          }
          for (let version = 1; version <= appended; version++) {
            const { progress } = yield* service.rollout(version, { limit: 500 })
            const not = new Set(progress!.laggards.map(({ node }) => node))
            const counted = Array.from(own.keys()).filter((node) => !not.has(node))
            assert.strictEqual(counted.length, progress!.applied)
            for (const node of counted) assert.isAtLeast(own.get(node)!, version, `${node} counts and has it not`)
          }
        })
        const pass = (seconds: number) =>
          Effect.repeatN(Effect.zipRight(TestClock.adjust("1 second"), compare), seconds - 1)

        const answered: Array<string> = []
        /** An answer is compared with the tables at the moment that it is given. */
        const awaiting = (version: number, options: Parameters<typeof service.awaitApplied>[1]) =>
          Effect.fork(
            Effect.gen(function* () {
              const result = yield* Effect.either(service.awaitApplied(version, options))
              const own = yield* truth
              const have = Array.from(own.values()).filter((position) => position >= version).length
              if (result._tag === "Right") assert.isAtLeast(have, result.right.needed)
              answered.push(`${version} ${result._tag}`)
              return result
            })
          )
        const append = (count: number) =>
          Effect.gen(function* () {
            const events = Array.from({ length: count }, () => ({ event_id: `e${++appended}`, type: "x" }))
            yield* source.append(yield* ControlEvent.makeAll(events))
          })

        yield* pass(3)
        assert.strictEqual((yield* service.summary()).nodes, nodes)
        yield* append(3)
        const early = yield* awaiting(3, { timeout: "1 minute" })
        yield* pass(6)
        assert.strictEqual((yield* early.poll)._tag, "None", "the slow ones have it not yet")
        yield* pass(8)
        assert.strictEqual((yield* Fiber.join(early))._tag, "Right")

        // Some are cut off, and some restart: three with their tables, two with empty ones.
        cutOff = true
        yield* append(4)
        const all = yield* awaiting(7, { timeout: "15 seconds" })
        const most = yield* awaiting(7, { timeout: "15 seconds", fraction: 0.9 })
        for (let index = 10; index < 15; index++) {
          yield* Scope.close(fleet[index]!.scope, Exit.void)
          fleet[index] = yield* start(index, index < 13 ? fleet[index]!.applied : yield* MemoryAppliedEvents.make)
        }
        yield* pass(17)
        const failed = yield* Fiber.join(all)
        assert.strictEqual((yield* Fiber.join(most))._tag, "Right")
        assert.strictEqual(failed._tag === "Left" ? failed.left._tag : "applied", "NotApplied")

        // Three lost in a row are silence, as they should be: what follows is exact.
        lossy = false
        yield* pass(10)
        const { progress } = yield* service.rollout(7, { limit: 500 })
        assert.deepStrictEqual(
          progress!.laggards.map(({ node, why }) => [node, why]),
          [
            ...[5, 6, 7, 8, 9].map((index) => [nameOf(index), "halted"]),
            // They have applied it; nobody has heard of it.
            ...[15, 16, 17, 18, 19].map((index) => [nameOf(index), "silent"])
          ]
        )
        const own = yield* truth
        assert.strictEqual(own.get(nameOf(15)), 7)
        assert.strictEqual(own.get(nameOf(5)), fatal - 1)
        const summary = yield* service.summary()
        assert.deepInclude(summary, { nodes, silent: 5 })
        assert.deepStrictEqual(
          summary.held.map(({ trouble }) => trouble?.version),
          [fatal, fatal, fatal, fatal, fatal]
        )
        assert.strictEqual(summary.slowest[0]?.lag, 2)

        // The network is mended.
        cutOff = false
        yield* TestClock.adjust("20 seconds")
        yield* compare
        assert.deepInclude(yield* service.summary(), { silent: 0 })
        assert.strictEqual((yield* service.rollout(7, { labels: { kind: "silent" } })).done, true)
        assert.isAtLeast(moments, 40)
        assert.lengthOf(answered, 3)
      }).pipe(Effect.withRandom(Random.make("fleet"))),
    240_000
  )
})
