import { assert, describe, layer } from "@effect/vitest"
import { DiscardPolicy, RetentionPolicy, StorageType, type StreamConfig } from "@nats-io/jetstream"
import { nanos } from "@nats-io/transport-node"
import { Array as Arr, Duration, Effect, Layer, Logger, LogLevel } from "effect"
import type { Sink } from "../../src/index.js"
import { JetStreamSink } from "../../src/jetstream/index.js"
import { findings } from "../../src/jetstream/internal/findings.js"
import * as Nats from "../support/nats.js"
import { Broker, event, freshName, layerBroker, publish as publishFor } from "./support/broker.js"

/** A stream, the sink on it, and the lines that the sink logs at its start. */
const open = (config: Partial<StreamConfig>, options: Partial<JetStreamSink.Options> = {}) =>
  Effect.gen(function* () {
    const { manager, server } = yield* Broker
    const stream = yield* freshName
    yield* Effect.promise(() => manager.streams.add({ name: stream, subjects: [`${stream}.>`], ...config }))
    const lines: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => {
      lines.push(`${logLevel.label} ${Arr.ensure(message).join(" ").replaceAll(stream, "s")}`)
    })
    const sink = yield* JetStreamSink.make({
      servers: [server.url],
      stream,
      subject: `${stream}.{type}`,
      ...options
    }).pipe(
      Effect.provide(Layer.merge(Logger.replace(Logger.defaultLogger, logger), Logger.minimumLogLevel(LogLevel.Info)))
    )
    const messages = Effect.promise(async () => (await manager.streams.info(stream)).state.messages)
    return { sink, lines, messages, stream }
  })

const publish = (sink: Sink.Sink["Type"], events: Arr.NonEmptyReadonlyArray<Sink.OutboundEvent>) =>
  publishFor(sink, events, 20_000)

const tags = (outcomes: ReadonlyArray<Sink.Outcome>) => outcomes.map(({ _tag }) => _tag)

describe.skipIf(!Nats.available())("The settings of a stream", () => {
  layer(layerBroker, { excludeTestServices: true, timeout: 120_000 })((it) => {
    for (const [what, config, line] of [
      ["max_msgs_per_subject", { max_msgs_per_subject: 1 }, /keeps only 1 of the events of a subject .*: set it to -1/],
      [
        "max_msgs_per_subject with discard new",
        { max_msgs_per_subject: 5, discard: DiscardPolicy.New, discard_new_per_subject: true },
        /keeps only 5 of the events of a subject/
      ],
      ["a tiny max_msg_size", { max_msg_size: 100 }, /takes messages of at most 100 bytes \(max_msg_size\).*: set it/],
      ["retention interest", { retention: RetentionPolicy.Interest }, /\(retention interest\).*with retention limits/],
      ["retention workqueue", { retention: RetentionPolicy.Workqueue }, /\(retention workqueue\)/],
      ["storage memory", { storage: StorageType.Memory }, /in memory and would lose them/],
      ["no_ack", { no_ack: true }, /\(no_ack\)/],
      ["sources", { sources: [{ name: "elsewhere" }] }, /also takes the messages of "elsewhere" \(sources\).*remove/]
    ] satisfies ReadonlyArray<readonly [string, Partial<StreamConfig>, RegExp]>) {
      it.scoped(`reject ${what}: one line, and nothing is published or parked`, () =>
        Effect.gen(function* () {
          const { lines, messages, sink, stream } = yield* open(config)
          assert.match(lines[1]!, /^ERROR Nothing can be published yet\. The stream "s" /)
          assert.match(lines[1]!, line)
          assert.strictEqual(lines.length, 2)
          const error = yield* Effect.flip(publish(sink, [event("a"), event("b")]))
          assert.deepInclude({ ...error }, { _tag: "SinkUnavailable", reason: "misconfigured" })
          assert.strictEqual(yield* messages, 0)
          const { manager } = yield* Broker
          yield* Effect.promise(() => manager.streams.delete(stream))
        })
      )
    }

    it.scoped("reject a mirror", () =>
      Effect.gen(function* () {
        const { lines } = yield* open({ subjects: [], mirror: { name: "original" } })
        assert.match(lines[1]!, /^ERROR .* is a mirror of "original" .*: publish to the original$/)
      })
    )

    it("reject what this server does not know", () => {
      const wanted = { name: "s", pattern: "s.>", eachOwnSubject: false }
      const missing = (config: object) =>
        findings(
          {
            subjects: ["s.>"],
            storage: StorageType.File,
            retention: RetentionPolicy.Limits,
            ...config
          } as StreamConfig,
          { ...wanted, minDuplicateWindow: Duration.zero }
        )
          .filter(({ ok }) => !ok)
          .map(({ line }) => line)
      assert.deepStrictEqual(missing({ duplicate_window: 0 }), [])
      assert.match(missing({ subject_transform: { dest: "other.>" } }).join(), /\(subject_transform\): remove/)
      assert.match(missing({ persist_mode: "async" }).join(), /\(persist_mode async\): re-create it/)
    })

    for (const [what, config, line] of [
      [
        "max_age",
        { max_age: nanos(30_000), duplicate_window: nanos(10_000) },
        "removes its oldest messages: nodes more than 30s behind cannot catch up"
      ],
      ["max_msgs", { max_msgs: 5 }, "removes its oldest messages: nodes more than 5 messages behind cannot catch up"],
      [
        "max_age and max_bytes",
        { max_age: nanos(30_000), max_bytes: 10_000, duplicate_window: nanos(10_000) },
        "removes its oldest messages: nodes more than 30s or 10000 bytes behind cannot catch up"
      ],
      [
        "discard new",
        { max_msgs: 5, discard: DiscardPolicy.New },
        "takes at most 5 messages (discard new): once it is full, nothing is published"
      ],
      [
        "max_msg_size",
        { max_msg_size: 10_000 },
        "takes messages of at most 10000 bytes (max_msg_size): larger events are parked"
      ],
      [
        "allow_rollup_hdrs",
        { allow_rollup_hdrs: true },
        "lets any publisher remove the feed with a header (allow_rollup_hdrs): turn that off"
      ]
    ] satisfies ReadonlyArray<readonly [string, Partial<StreamConfig>, string]>) {
      it.scoped(`warn of ${what}, and publish`, () =>
        Effect.gen(function* () {
          const { lines, sink } = yield* open(config, { minDuplicateWindow: "10 seconds" })
          assert.deepStrictEqual(
            lines.filter((line) => !line.startsWith("INFO")),
            [`WARN The stream "s" ${line}`]
          )
          assert.deepStrictEqual(tags(yield* publish(sink, [event("a")])), ["Published"])
        })
      )
    }

    it.scoped("take max_msgs_per_subject if each event has a subject of its own", () =>
      Effect.gen(function* () {
        const { messages, sink } = yield* open({ max_msgs_per_subject: 1 }, { deduplication: "subject" })
        assert.deepStrictEqual(tags(yield* publish(sink, [event("a"), event("b")])), ["Published", "Published"])
        assert.strictEqual(yield* messages, 2)
      })
    )

    const large = (id: string) => event(id, { text: "x".repeat(20_000) })

    it.scoped("that reject most events for their size park none of them", () =>
      Effect.gen(function* () {
        const { messages, sink } = yield* open({ max_msg_size: 10_000 })
        const many = Arr.makeBy(11, (n) => large(`l${n}`))
        const all = yield* Effect.flip(publish(sink, many))
        assert.deepInclude({ ...all }, { _tag: "SinkUnavailable", reason: "misconfigured" })
        assert.match(all.message, /^The stream "\w+" rejects more events for their size than it takes: raise/)
        const most = yield* publish(sink, Arr.prepend(many, event("d")))
        assert.deepStrictEqual(tags(most), ["Published", ...many.map(() => "NotAttempted")])
        assert.strictEqual(yield* messages, 1)
        const some = yield* publish(sink, Arr.prepend(many.slice(0, 10), event("e")))
        assert.deepStrictEqual(tags(some), ["Published", ...many.slice(0, 10).map(() => "EventRejected")])
      })
    )

    it.scoped("that reject one event after another for its size park ten", () =>
      Effect.gen(function* () {
        const { sink } = yield* open({ max_msg_size: 10_000 })
        for (let n = 0; n < 10; n++) {
          assert.deepStrictEqual(tags(yield* publish(sink, [large(`l${n}`)])), ["EventRejected"])
        }
        for (let n = 0; n < 2; n++) {
          const error = yield* Effect.flip(publish(sink, [large("b")]))
          assert.deepInclude({ ...error }, { _tag: "SinkUnavailable", reason: "misconfigured" })
        }
        assert.deepStrictEqual(tags(yield* publish(sink, [event("c")])), ["Published"])
        assert.deepStrictEqual(tags(yield* publish(sink, [large("b")])), ["EventRejected"])
      })
    )
  })
})
