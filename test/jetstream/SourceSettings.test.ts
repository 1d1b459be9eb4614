import { assert, describe, layer } from "@effect/vitest"
import { RetentionPolicy, StorageType, type StreamConfig } from "@nats-io/jetstream"
import { nanos } from "@nats-io/transport-node"
import { Array as Arr, Effect, Layer, Logger, LogLevel, Metric } from "effect"
import { Applier, ApplierMetrics, ArtifactStore, Handlers, Source } from "../../src/fleet/index.js"
import { JetStreamSource } from "../../src/jetstream/index.js"
import { forNode } from "../../src/jetstream/internal/findings.js"
import { MemoryAppliedEvents } from "../../src/testing/index.js"
import * as Nats from "../support/nats.js"
import { eventually } from "../support/pump.js"
import { Broker, freshName, layerBroker } from "./support/broker.js"

/** A stream, the source of a node on it, and the warnings that are logged. */
const open = (config: Partial<StreamConfig>) =>
  Effect.gen(function* () {
    const { manager, server } = yield* Broker
    const stream = yield* freshName
    yield* Effect.promise(() => manager.streams.add({ name: stream, subjects: [`${stream}.>`], ...config }))
    const warnings: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => {
      if (logLevel._tag === "Warning") warnings.push(Arr.ensure(message).join(" ").replaceAll(stream, "s"))
    })
    const logged = Layer.merge(Logger.replace(Logger.defaultLogger, logger), Logger.minimumLogLevel(LogLevel.Info))
    const source = yield* JetStreamSource.make({ servers: [server.url], stream })
    const publish = (count: number) =>
      Effect.promise(async () => {
        for (let n = 0; n < count; n++) {
          await manager.jetstream().publish(`${stream}.x`, JSON.stringify({ event_id: `e${n}`, type: "x" }))
        }
      })
    return { manager, source, stream, warnings, logged, publish }
  })

const margin = (source: Source.Source["Type"], position: number) =>
  Effect.map(source.margin!(position), ({ used }) => used)

describe.skipIf(!Nats.available())("The settings of a stream that a node reads", () => {
  layer(layerBroker, { excludeTestServices: true, timeout: 120_000 })((it) => {
    for (const [what, config, line] of [
      ["retention interest", { retention: RetentionPolicy.Interest }, /\(retention interest\).*with retention limits$/],
      ["retention workqueue", { retention: RetentionPolicy.Workqueue }, /\(retention workqueue\).*limits$/],
      ["sources", { sources: [{ name: "elsewhere" }] }, /messages of "elsewhere" \(sources\).*remove its sources$/]
    ] satisfies ReadonlyArray<readonly [string, Partial<StreamConfig>, RegExp]>) {
      it.scoped(`that contradict a feed are an error: ${what}`, () =>
        Effect.gen(function* () {
          const { manager, source, stream } = yield* open(config)
          const error = yield* Effect.flip(source.look)
          assert.deepInclude({ ...error }, { _tag: "SourceError", reason: "misconfigured" })
          assert.match(error.message, line)
          yield* Effect.promise(() => manager.streams.delete(stream))
        })
      )
    }

    it("are judged also where this server does not know them", () => {
      const judge = (config: object) =>
        forNode(
          {
            subjects: ["s.>"],
            storage: StorageType.File,
            retention: RetentionPolicy.Limits,
            ...config
          } as StreamConfig,
          "s"
        )
      assert.deepStrictEqual(judge({}), { missing: undefined, bounds: [] })
      assert.deepStrictEqual(judge({ mirror: { name: "o" } }), { missing: undefined, bounds: [] })
      assert.match(judge({ mirror: { name: "o", filter_subject: "a" } }).missing!, /a part of "o": mirror all of it/)
      assert.match(
        judge({ mirror: { name: "o", subject_transforms: [{ src: "a", dest: "b" }] } }).missing!,
        /mirror all of it/
      )
      assert.match(judge({ allow_msg_counter: true }).missing!, /only counters/)
      assert.match(judge({ subject_delete_marker_ttl: 1 }).missing!, /markers of its own/)
      assert.match(judge({ sealed: true }).bounds[0]!.message, /^The stream "s" is sealed: no event comes any more$/)
    })

    for (const [what, config, line] of [
      [
        "max_msgs",
        { max_msgs: 5 },
        'The stream "s" removes its oldest messages: nodes more than 5 messages behind cannot catch up'
      ],
      [
        "storage memory",
        { storage: StorageType.Memory },
        'The stream "s" keeps its messages in memory only, and loses them with the server: nodes then start anew'
      ],
      [
        "max_msgs_per_subject",
        { max_msgs_per_subject: 1 },
        'The stream "s" keeps only 1 of the events of a subject (max_msgs_per_subject): unless each has a subject of its own (NATS_DEDUPLICATION=subject), a node that is behind misses some and halts'
      ],
      [
        "allow_rollup_hdrs",
        { allow_rollup_hdrs: true },
        'The stream "s" lets any publisher remove the feed with a header (allow_rollup_hdrs): turn that off'
      ],
      [
        "max_consumers",
        { max_consumers: 1 },
        'The stream "s" serves at most 1 readers (max_consumers): each node needs one, and the sink one to look back; a stream\'s limit cannot be changed'
      ]
    ] satisfies ReadonlyArray<readonly [string, Partial<StreamConfig>, string]>) {
      it.scoped(`are said once, and read: ${what}`, () =>
        Effect.gen(function* () {
          const { logged, source, warnings } = yield* open(config)
          yield* Effect.provide(source.look, logged)
          yield* Effect.provide(source.look, logged)
          assert.deepStrictEqual(warnings, [line])
        })
      )
    }

    it.scoped("give the share of what the feed keeps that is unread: by count", () =>
      Effect.gen(function* () {
        const { publish, source } = yield* open({ max_msgs: 10 })
        assert.strictEqual(yield* margin(source, 0), 0)
        yield* publish(8)
        assert.strictEqual(yield* margin(source, 0), 0.8)
        assert.strictEqual(yield* margin(source, 6), 0.2)
        assert.strictEqual(yield* margin(source, 8), 0)
        yield* publish(8)
        assert.strictEqual(yield* margin(source, 0), 1)
        assert.strictEqual(yield* margin(source, 6), 1)
      })
    )

    it.scoped("give the share that is unread: by bytes, and by age of the next event alone", () =>
      Effect.gen(function* () {
        const bytes = yield* open({ max_bytes: 10_000 })
        yield* bytes.publish(40)
        const { state } = yield* Effect.promise(() => bytes.manager.streams.info(bytes.stream))
        assert.closeTo(yield* margin(bytes.source, 20), state.bytes / 2 / 10_000, 0.001)
        const age = yield* open({ max_age: nanos(1_000_000), duplicate_window: nanos(1_000) })
        yield* age.publish(1)
        yield* eventually(
          "the event is a moment old",
          Effect.map(margin(age.source, 0), (used) => used > 0)
        )
        assert.isBelow(yield* margin(age.source, 0), 0.1)
        assert.strictEqual(yield* margin(age.source, 1), 0)
        const unbounded = yield* open({})
        yield* unbounded.publish(3)
        assert.strictEqual(yield* margin(unbounded.source, 0), 0)
      })
    )

    it.scoped("are in the status of a halted applier, and near the bound in its log and metric", () =>
      Effect.gen(function* () {
        const { logged, publish, source, warnings } = yield* open({ max_msgs: 10 })
        yield* publish(8)
        const halting = Handlers.make([], {})
        yield* Effect.gen(function* () {
          const { status } = yield* Applier.Applier
          yield* eventually(
            "the status has the share",
            Effect.map(status, ({ boundUsed, state }) => boundUsed === 0.8 && state === "halted")
          )
          assert.deepStrictEqual((yield* status).bounds?.[0]?.reach, { events: 10 })
          assert.match(
            warnings.find((line) => line.startsWith("80 %")) ?? "",
            /^80 % of what the feed keeps is unread by this node, at 100 % .* more than 10 messages behind cannot catch up: see why/
          )
          assert.strictEqual((yield* Metric.value(ApplierMetrics.boundUsed)).value, 0.8)
        }).pipe(
          Effect.provide(
            Applier.layer(halting).pipe(
              Layer.provide([Layer.succeed(Source.Source, source), MemoryAppliedEvents.layer, ArtifactStore.layerNone]),
              Layer.provideMerge(logged)
            )
          )
        )
      })
    )
  })
})
