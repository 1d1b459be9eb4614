import { assert, describe, layer } from "@effect/vitest"
import { DiscardPolicy, RetentionPolicy, StorageType, type StreamConfig } from "@nats-io/jetstream"
import { nanos } from "@nats-io/transport-node"
import { Array as Arr, Clock, Duration, Effect, Layer, Logger, LogLevel } from "effect"
import type { Sink } from "../../src/index.js"
import { JetStreamSink } from "../../src/jetstream/index.js"
import { findings } from "../../src/jetstream/internal/findings.js"
import * as Nats from "../support/nats.js"
import { Broker, event, freshName, layerBroker, publish as publishFor } from "./support/broker.js"

/** The lines that are logged, with a short name for the stream. */
const collect = (stream: string) => {
  const lines: Array<string> = []
  const logger = Logger.make(({ logLevel, message }) => {
    lines.push(`${logLevel.label} ${Arr.ensure(message).join(" ").replaceAll(stream, "s")}`)
  })
  const logged = Layer.merge(Logger.replace(Logger.defaultLogger, logger), Logger.minimumLogLevel(LogLevel.Info))
  return { lines, logged }
}

/** A clock that is ahead. */
const ahead = (millis: number): Clock.Clock => {
  const clock = Clock.make()
  return {
    ...clock,
    currentTimeMillis: Effect.map(clock.currentTimeMillis, (now) => now + millis),
    unsafeCurrentTimeMillis: () => clock.unsafeCurrentTimeMillis() + millis
  }
}

const plain = { subjects: ["s.>"], storage: StorageType.File, retention: RetentionPolicy.Limits, duplicate_window: 0 }

const wantedOf = (name: string) => ({
  name,
  pattern: "s.>",
  eachOwnSubject: false,
  minDuplicateWindow: Duration.zero
})

/** A stream, the sink on it, and the lines that the sink logs at its start. */
const open = (config: Partial<StreamConfig>, options: Partial<JetStreamSink.Options> = {}) =>
  Effect.gen(function* () {
    const { manager, server } = yield* Broker
    const stream = yield* freshName
    yield* Effect.promise(() => manager.streams.add({ name: stream, subjects: [`${stream}.>`], ...config }))
    const { lines, logged } = collect(stream)
    const sink = yield* JetStreamSink.make({
      servers: [server.url],
      stream,
      subject: `${stream}.{type}`,
      ...options
    }).pipe(Effect.provide(logged))
    const messages = Effect.promise(async () => (await manager.streams.info(stream)).state.messages)
    return { sink, lines, logged, messages, stream }
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
      const missing = (config: object) =>
        findings({ ...plain, ...config } as StreamConfig, wantedOf("s"))
          .filter(({ ok }) => !ok)
          .map(({ line }) => line)
      assert.deepStrictEqual(missing({ duplicate_window: 0 }), [])
      assert.match(missing({ subject_transform: { dest: "other.>" } }).join(), /\(subject_transform\): remove/)
      assert.match(missing({ persist_mode: "async" }).join(), /\(persist_mode async\): re-create it/)
      assert.match(missing({ allow_msg_counter: true }).join(), /takes only counters .*: re-create it without counters/)
      assert.match(
        missing({ allow_msg_ttl: true, subject_delete_marker_ttl: nanos(1_000) }).join(),
        /markers of its own .*\(subject_delete_marker_ttl\), which halt nodes: set it to 0/
      )
    })

    it("warn of what this server does not know", () => {
      const bounds = (config: object) =>
        findings({ ...plain, ...config } as StreamConfig, wantedOf("s"))
          .flatMap(({ bound, ok }) => (ok && bound !== undefined ? [bound.message] : []))
          .join()
      assert.strictEqual(bounds({}), "")
      assert.match(bounds({ allow_msg_ttl: true }), /\(allow_msg_ttl\).*: let nobody but the pump publish to it$/)
      assert.match(bounds({ allow_msg_schedules: true }), /\(allow_msg_schedules\).*: let nobody but the pump publish/)
      assert.match(
        bounds({ consumer_limits: { inactive_threshold: nanos(30_000) } }),
        /idle for at most 30s \(consumer_limits\), and nodes ask for 5m: raise inactive_threshold/
      )
      assert.strictEqual(bounds({ consumer_limits: { inactive_threshold: nanos(300_000) } }), "")
    })

    it.scoped("that is sealed later is misconfigured, and the line says what to do", () =>
      Effect.gen(function* () {
        const { messages, sink, stream } = yield* open({})
        assert.deepStrictEqual(tags(yield* publish(sink, [event("a")])), ["Published"])
        const { manager } = yield* Broker
        const { config } = yield* Effect.promise(() => manager.streams.info(stream))
        const sealed: Partial<StreamConfig> = { ...config, sealed: true }
        yield* Effect.promise(() => manager.streams.update(stream, sealed))
        const first = yield* Effect.flip(publish(sink, [event("b")]))
        const second = yield* Effect.flip(publish(sink, [event("b")]))
        assert.deepStrictEqual([first.reason, second.reason], ["misconfigured", "misconfigured"])
        assert.match(second.message, /is sealed .*: create another one, and set NATS_STREAM \(stream\)$/)
        assert.strictEqual(yield* messages, 1)
      })
    )

    it.scoped("are said if the first look fails and a later one succeeds, once", () =>
      Effect.gen(function* () {
        const { manager, server } = yield* Broker
        const stream = yield* freshName
        const { lines, logged } = collect(stream)
        const sink = yield* JetStreamSink.make({ servers: [server.url], stream, subject: `${stream}.{type}` }).pipe(
          Effect.provide(logged)
        )
        assert.match(lines.join(), /ERROR Nothing can be published yet\. There is no stream/)
        assert.deepStrictEqual(yield* sink.bounds!, [])
        yield* Effect.promise(() => manager.streams.add({ name: stream, subjects: [`${stream}.>`], max_msgs: 5 }))
        yield* Effect.provide(sink.check!, logged)
        yield* Effect.provide(sink.check!, logged)
        const bound = 'The stream "s" removes its oldest messages: nodes more than 5 messages behind cannot catch up'
        assert.deepStrictEqual(
          lines.filter((line) => line.startsWith("WARN")),
          [`WARN ${bound}`]
        )
        const bounds = yield* sink.bounds!
        assert.deepStrictEqual(bounds, [{ message: bound.replace('"s"', `"${stream}"`), reach: { events: 5 } }])
      })
    )

    it.scoped(
      "are looked at again while all goes well: a change is said, and one that contradicts a feed stops it",
      () =>
        Effect.gen(function* () {
          const { lines, logged, sink, stream } = yield* open({})
          const { manager } = yield* Broker
          const change = (config: Partial<StreamConfig>) =>
            Effect.promise(async () => {
              const { config: before } = await manager.streams.info(stream)
              await manager.streams.update(stream, { ...before, ...config })
            })
          const later = (millis: number) => Effect.withClock(sink.check!.pipe(Effect.provide(logged)), ahead(millis))
          yield* change({ max_age: nanos(300_000) })
          yield* later(5_000)
          assert.deepStrictEqual(yield* sink.bounds!, [])
          yield* later(15_000)
          assert.deepStrictEqual(
            lines.filter((line) => line.startsWith("WARN")),
            ['WARN The stream "s" removes its oldest messages: nodes more than 5m behind cannot catch up']
          )
          assert.deepStrictEqual(
            (yield* sink.bounds!).map(({ reach }) => reach),
            [{ millis: 300_000 }]
          )
          yield* change({ max_msgs_per_subject: 1 })
          const error = yield* Effect.flip(later(30_000))
          assert.deepInclude({ ...error }, { reason: "misconfigured" })
          const refused = yield* Effect.flip(publish(sink, [event("a")]))
          assert.match(refused.message, /max_msgs_per_subject/)
        })
    )

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
        const others = Arr.makeBy(10, (n) => event(`c${n}`))
        assert.deepStrictEqual(
          tags(yield* publish(sink, others)),
          others.map(() => "Published")
        )
        const still = yield* Effect.flip(publish(sink, [large("b")]))
        assert.deepInclude({ ...still }, { _tag: "SinkUnavailable", reason: "misconfigured" })
        assert.deepStrictEqual(tags(yield* publish(sink, [event("d")])), ["Published"])
        assert.deepStrictEqual(tags(yield* publish(sink, [large("b")])), ["EventRejected"])
      })
    )

    it.scoped("that reject ten of each batch for their size park ten in all, though they take one of each", () =>
      Effect.gen(function* () {
        const { messages, sink } = yield* open({ max_msg_size: 10_000 })
        const batch = (n: number) =>
          Arr.prepend(
            Arr.makeBy(10, (m) => large(`l${n}-${m}`)),
            event(`s${n}`)
          )
        const rejected = Array.from({ length: 10 }, () => "EventRejected")
        const untried = Array.from({ length: 10 }, () => "NotAttempted")
        assert.deepStrictEqual(tags(yield* publish(sink, batch(0))), ["Published", ...rejected])
        for (let n = 1; n < 5; n++) {
          assert.deepStrictEqual(tags(yield* publish(sink, batch(n))), ["Published", ...untried])
        }
        assert.strictEqual(yield* messages, 5)
      })
    )
  })
})
