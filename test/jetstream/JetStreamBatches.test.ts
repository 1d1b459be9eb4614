import { assert, describe, layer } from "@effect/vitest"
import { DiscardPolicy, type StreamConfig } from "@nats-io/jetstream"
import { headers, nanos, type NatsConnection } from "@nats-io/transport-node"
import { Array as Arr, Effect, Exit, Fiber, Layer, Logger, LogLevel, Schedule } from "effect"
import type { Sink } from "../../src/index.js"
import { JetStreamSink } from "../../src/jetstream/index.js"
import { SinkConformance } from "../../src/testing/index.js"
import * as Nats from "../support/nats.js"
import { natsCluster } from "../support/natsCluster.js"
import { eventually } from "../support/pump.js"
import { valve } from "../support/valve.js"
import { beforeCommit } from "./support/beforeCommit.js"
import { Broker, connected, entries, event, freshName, makeBroker, publish, silent } from "./support/broker.js"
import { obeys } from "./support/laws.js"

const least = Nats.leastForBatches
const command = Nats.programOf(least)?.command

const freshStream = (config: Partial<StreamConfig> = {}) =>
  Effect.gen(function* () {
    const { manager } = yield* Broker
    const name = yield* freshName
    yield* Effect.promise(() => manager.streams.add({ name, subjects: [`${name}.>`], allow_atomic: true, ...config }))
    return name
  })

const makeSink = (stream: string, options: Partial<JetStreamSink.Options> = {}) =>
  Effect.gen(function* () {
    const { server } = yield* Broker
    return yield* JetStreamSink.make({
      servers: [server.url],
      stream,
      subject: `${stream}.{type}`,
      publish: "batch",
      ...options
    })
  }).pipe(Effect.provide(silent))

const shape = (outcomes: ReadonlyArray<Sink.Outcome>) =>
  outcomes.map((outcome) =>
    outcome._tag === "Published" ? `${outcome.version}${outcome.duplicate ? " again" : ""}` : outcome._tag
  )

/** The ids in the stream, in its order. */
const feed = (stream: string) =>
  Effect.flatMap(Broker, ({ manager }) =>
    Effect.map(entries(manager, stream), (entries) => entries.map(({ eventId }) => eventId))
  )

/** The same, asked on a connection of its own: the test's is being made again after a restart of the server. */
const feedAfterRestart = (stream: string) =>
  Effect.gen(function* () {
    const { server } = yield* Broker
    return yield* Effect.provideService(feed(stream), Broker, { server, ...(yield* connected([server])) })
  }).pipe(Effect.scoped)

/** The places in atomic batches that the messages of the stream have, in its order. */
const places = (stream: string) =>
  Effect.flatMap(Broker, ({ manager }) =>
    Effect.promise(async () => {
      const { state } = await manager.streams.info(stream)
      const found: Array<string> = []
      for (let seq = Math.max(state.first_seq, 1); seq <= state.last_seq; seq++) {
        const { header } = (await manager.streams.getMessage(stream, { seq }))!
        found.push(header.get("Nats-Batch-Sequence"))
      }
      return found
    })
  )

/** So many events of one key, named by the key and a number. */
const ofKey = (key: string, count: number, options: Parameters<typeof event>[1] = {}) =>
  Arr.makeBy(count, (n) => event(`${key}${n + 1}`, { key, ...options }))

const ids = (events: ReadonlyArray<Sink.OutboundEvent>) => events.map(({ eventId }) => eventId as string)

const numbers = (from: number, to: number) => Arr.range(from, to).map(String)

/** Sends messages of an atomic batch without its last one. */
const begin = (nc: NatsConnection, stream: string, batch: string, count: number) =>
  Effect.promise(async () => {
    for (let n = 1; n <= count; n++) {
      const header = headers()
      header.set("Nats-Batch-Id", batch)
      header.set("Nats-Batch-Sequence", String(n))
      header.set("Nats-Msg-Id", `${batch}-${n}`)
      nc.publish(`${stream}.test`, `{"event_id":"${batch}-${n}"}`, { headers: header })
    }
    await nc.flush()
  })

/** The lines that are logged while something runs. */
const linesOf = <A, E, R>(run: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const lines: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => {
      lines.push(`${logLevel.label} ${Arr.ensure(message).join(" ")}`)
    })
    yield* run.pipe(
      Effect.provide(Layer.merge(Logger.replace(Logger.defaultLogger, logger), Logger.minimumLogLevel(LogLevel.Info)))
    )
    return lines.filter((line) => line.includes("Publishes"))
  })

describe.skipIf(!Nats.availableFrom(least))("atomic batches of JetStream", () => {
  layer(Layer.scoped(Broker, makeBroker({ command })), { excludeTestServices: true, timeout: 300_000 })((it) => {
    for (const deduplication of ["lookup", "subject"] as const) {
      for (const publish of ["batch", "auto"] as const) {
        describe(`the laws of sinks, by ${publish}, with deduplication by ${deduplication}`, () => {
          for (const law of SinkConformance.sinkConformance) {
            it.scoped(law.name, () => obeys(law, { deduplication, publish }))
          }
        })
      }

      describe(`a batch, with deduplication by ${deduplication}`, () => {
        it.scoped("is stored in order, each event once, under the version that is answered", () =>
          Effect.gen(function* () {
            const stream = yield* freshStream()
            const sink = yield* makeSink(stream, { deduplication })
            const events = Arr.makeBy(300, (n) => event(`e${n}`, { key: `k${n % 3}` }))
            assert.deepStrictEqual(shape(yield* publish(sink, events)), numbers(1, 300))
            assert.deepStrictEqual(yield* feed(stream), ids(events))
            assert.deepStrictEqual(yield* places(stream), numbers(1, 300))
          })
        )

        it.scoped("of more than 1,000 events is stored as several", () =>
          Effect.gen(function* () {
            const stream = yield* freshStream()
            const sink = yield* makeSink(stream, { deduplication })
            const events = ofKey("a", 1_002)
            assert.deepStrictEqual(shape(yield* publish(sink, events)), numbers(1, 1_002))
            assert.deepStrictEqual(yield* feed(stream), ids(events))
            assert.deepStrictEqual((yield* places(stream)).slice(998), ["999", "1000", "1", "2"])
          })
        )

        it.scoped("with events that the stream holds publishes the others, in order", () =>
          Effect.gen(function* () {
            const stream = yield* freshStream()
            const sink = yield* makeSink(stream, { deduplication })
            const events = ofKey("a", 6)
            assert.deepStrictEqual(shape(yield* publish(sink, Arr.make(events[0], events[1]!))), ["1", "2"])
            assert.deepStrictEqual(shape(yield* publish(sink, events)), ["1 again", "2 again", "3", "4", "5", "6"])
            assert.deepStrictEqual(yield* feed(stream), ids(events))
          })
        )

        it.scoped("with an event that is too large publishes the others, and nothing of its key", () =>
          Effect.gen(function* () {
            const stream = yield* freshStream({ max_msg_size: 20_000 })
            const sink = yield* makeSink(stream, { deduplication })
            for (const [prefix, size] of [
              ["server", 2_000_000],
              ["stream", 30_000]
            ] as const) {
              const [one, two, three, other] = ["1", "2", "3", "4"].map((n) => `${prefix}${n}`)
              const outcomes = yield* publish(sink, [
                event(one!, { key: "a" }),
                event(two!, { key: "a", text: "x".repeat(size) }),
                event(three!, { key: "a" }),
                event(other!, { key: "b" })
              ])
              assert.deepStrictEqual(
                outcomes.map(({ _tag }) => _tag),
                ["Published", "EventRejected", "NotAttempted", "Published"]
              )
            }
            assert.deepStrictEqual((yield* feed(stream)).sort(), ["server1", "server4", "stream1", "stream4"])
          })
        )

        it.scoped("that was stored while its answer was lost is not stored again", () =>
          Effect.gen(function* () {
            const { server } = yield* Broker
            const stream = yield* freshStream()
            const gate = yield* valve(server.port)
            const sink = yield* makeSink(stream, { deduplication, servers: [`127.0.0.1:${gate.port}`] })
            yield* publish(sink, [event("z")])
            yield* gate.set({ toClient: "drop" })
            const events = ofKey("a", 50)
            const error = yield* Effect.flip(publish(sink, events, 500))
            assert.strictEqual(error.reason, "timeout")
            yield* gate.set({ toClient: "pass" })
            assert.deepStrictEqual(
              shape(yield* publish(sink, events)),
              numbers(2, 51).map((version) => `${version} again`)
            )
            assert.deepStrictEqual(yield* feed(stream), ["z", ...ids(events)])
          })
        )

        it.scoped("that was stored while its answer was lost is found beyond the duplicate window", () =>
          Effect.gen(function* () {
            const { server } = yield* Broker
            const stream = yield* freshStream({ duplicate_window: nanos(1_000) })
            const gate = yield* valve(server.port)
            const sink = yield* makeSink(stream, {
              deduplication,
              minDuplicateWindow: "1 second",
              servers: [`127.0.0.1:${gate.port}`]
            })
            yield* publish(sink, [event("z")])
            yield* gate.set({ toClient: "drop" })
            const events = ofKey("a", 20)
            yield* Effect.flip(publish(sink, events, 300))
            yield* gate.set({ toClient: "pass" })
            // The server forgets the ids: there is nothing to wait for but time.
            yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 1_500)))
            const rest = ofKey("a", 25)
            const [first, ...more] = [...events, ...rest.slice(20)]
            assert.deepStrictEqual(shape(yield* publish(sink, [first, ...more])), [
              ...numbers(2, 21).map((version) => `${version} again`),
              ...numbers(22, 26)
            ])
            assert.deepStrictEqual(yield* feed(stream), ["z", ...ids(rest)])
          })
        )
      })
    }

    describe("a batch whose commit does not arrive", () => {
      it.scoped("leaves nothing behind, and is published again", () =>
        Effect.gen(function* () {
          const { server } = yield* Broker
          const stream = yield* freshStream()
          const proxy = yield* beforeCommit(server.port)
          const sink = yield* makeSink(stream, { servers: [proxy.url] })
          const events = ofKey("a", 200)
          const error = yield* Effect.flip(publish(sink, events, 500))
          assert.strictEqual(error.reason, "timeout")
          assert.strictEqual(yield* proxy.stopped, 1)
          assert.deepStrictEqual(yield* feed(stream), [])
          yield* proxy.open
          assert.deepStrictEqual(shape(yield* publish(sink, events)), numbers(1, 200))
          assert.deepStrictEqual(yield* feed(stream), ids(events))
        })
      )

      it.scoped("because the publish is interrupted leaves nothing behind, and is published by another pump", () =>
        Effect.gen(function* () {
          const { server } = yield* Broker
          const stream = yield* freshStream()
          const proxy = yield* beforeCommit(server.port)
          const sink = yield* makeSink(stream, { servers: [proxy.url] })
          const events = ofKey("a", 200)
          const publishing = yield* Effect.fork(publish(sink, events, 60_000))
          yield* eventually(
            "the batch is at its commit",
            Effect.map(proxy.stopped, (stopped) => stopped === 1)
          )
          yield* Fiber.interrupt(publishing)
          const other = yield* makeSink(stream)
          assert.deepStrictEqual(shape(yield* publish(other, events)), numbers(1, 200))
          assert.deepStrictEqual(yield* feed(stream), ids(events))
        })
      )

      it.scoped("because the server is killed leaves nothing behind", () =>
        Effect.gen(function* () {
          const broker = yield* makeBroker({ command })
          yield* Effect.gen(function* () {
            const stream = yield* freshStream()
            const proxy = yield* beforeCommit(broker.server.port)
            const sink = yield* makeSink(stream, { servers: [proxy.url] })
            const events = ofKey("a", 200)
            const publishing = yield* Effect.fork(publish(sink, events, 60_000))
            yield* eventually(
              "the batch is at its commit",
              Effect.map(proxy.stopped, (stopped) => stopped === 1)
            )
            yield* Effect.promise(() => broker.server.kill("SIGKILL"))
            assert.strictEqual((yield* Effect.flip(Fiber.join(publishing))).reason, "unreachable")
            yield* Effect.promise(() => broker.server.start())
            yield* proxy.open
            assert.deepStrictEqual(yield* feedAfterRestart(stream), [])
            assert.deepStrictEqual(shape(yield* publish(sink, events)), numbers(1, 200))
            assert.deepStrictEqual(yield* feedAfterRestart(stream), ids(events))
          }).pipe(Effect.provideService(Broker, broker))
        })
      )
    })

    it.scoped("a batch is stored whole or not at all, whenever the server is killed", () =>
      Effect.gen(function* () {
        const broker = yield* makeBroker({ command })
        yield* Effect.gen(function* () {
          const stream = yield* freshStream()
          const sink = yield* makeSink(stream)
          const published: Array<string> = []
          for (const [round, millis] of [0, 1, 2, 3, 5, 8, 13, 21, 34].entries()) {
            const events = ofKey(`r${round}-`, 400)
            const publishing = yield* Effect.fork(Effect.exit(publish(sink, events)))
            yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, millis)))
            yield* Effect.promise(() => broker.server.kill("SIGKILL"))
            const exit = yield* Fiber.join(publishing)
            yield* Effect.promise(() => broker.server.start())
            const found = yield* feedAfterRestart(stream)
            const stored = found.length - published.length
            assert.include(Exit.isSuccess(exit) ? [400] : [0, 400], stored, `round ${round}`)
            const outcomes = yield* publish(sink, events)
            published.push(...ids(events))
            assert.deepStrictEqual(
              shape(outcomes).map((text) => text.replace(" again", "")),
              numbers(published.length - 399, published.length)
            )
          }
          assert.deepStrictEqual(yield* feedAfterRestart(stream), published)
        }).pipe(Effect.provideService(Broker, broker))
      })
    )

    describe("a batch that the stream rejects", () => {
      it.scoped("for too many in flight goes message by message", () =>
        Effect.gen(function* () {
          const { nc } = yield* Broker
          const stream = yield* freshStream()
          const sink = yield* makeSink(stream)
          yield* Effect.forEach(Arr.range(1, 50), (n) => begin(nc, stream, `open${n}`, 2), { discard: true })
          const events = ofKey("a", 20)
          assert.deepStrictEqual(shape(yield* publish(sink, events)), numbers(1, 20))
          assert.deepStrictEqual(yield* feed(stream), ids(events))
          assert.isTrue((yield* places(stream)).every((place) => place === ""))
        })
      )

      it.scoped("for want of room publishes what there is room for", () =>
        Effect.gen(function* () {
          const { manager } = yield* Broker
          const stream = yield* freshStream({ max_msgs: 5, discard: DiscardPolicy.New })
          const sink = yield* makeSink(stream)
          const events = ofKey("a", 8)
          const outcomes = yield* publish(sink, events)
          assert.deepStrictEqual(shape(outcomes), [...numbers(1, 5), ...Arr.replicate("NotAttempted", 3)])
          const rest = Arr.make(events[5]!, events[6]!, events[7]!)
          assert.strictEqual((yield* Effect.flip(publish(sink, rest))).reason, "full")
          yield* Effect.promise(() => manager.streams.update(stream, { max_msgs: 100 }))
          assert.deepStrictEqual(shape(yield* publish(sink, rest)), ["6", "7", "8"])
          assert.deepStrictEqual(yield* feed(stream), ids(events))
        })
      )

      it.scoped("for its subject's last sequence answers the version of what is there", () =>
        Effect.gen(function* () {
          const stream = yield* freshStream({ duplicate_window: nanos(1_000) })
          const options = { deduplication: "subject", minDuplicateWindow: "1 second" } as const
          const sink = yield* makeSink(stream, options)
          const events = ofKey("a", 5, { createdAt: Date.now() - 60_000 })
          yield* publish(sink, [events[0]])
          yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 1_500)))
          assert.deepStrictEqual(shape(yield* publish(sink, events)), ["1 again", "2", "3", "4", "5"])
          assert.deepStrictEqual(yield* feed(stream), ids(events))
        })
      )

      it.scoped("for its size is followed by smaller ones", () =>
        Effect.gen(function* () {
          const broker = yield* makeBroker({
            command,
            config: (directory) => `jetstream { store_dir: "${directory}/store", limits { batch { max_msgs: 100 } } }`,
            jetStream: false
          })
          yield* Effect.gen(function* () {
            const stream = yield* freshStream()
            const sink = yield* makeSink(stream)
            const events = ofKey("a", 250)
            assert.deepStrictEqual(shape(yield* publish(sink, events)), numbers(1, 250))
            const more = ofKey("b", 250)
            assert.deepStrictEqual(shape(yield* publish(sink, more)), numbers(251, 500))
            assert.deepStrictEqual(yield* feed(stream), [...ids(events), ...ids(more)])
            const found = yield* places(stream)
            assert.isTrue(found.slice(0, 250).every((place) => place === ""))
            assert.deepStrictEqual(found.slice(348, 352), ["99", "100", "1", "2"])
          }).pipe(Effect.provideService(Broker, broker))
        })
      )

      it.scoped("because batches were turned off goes message by message, and that is said once", () =>
        Effect.gen(function* () {
          const { manager } = yield* Broker
          const stream = yield* freshStream()
          const lines = yield* linesOf(
            Effect.gen(function* () {
              const { server } = yield* Broker
              const sink = yield* JetStreamSink.make({
                servers: [server.url],
                stream,
                subject: `${stream}.{type}`,
                publish: "batch"
              })
              const send = (events: Arr.NonEmptyReadonlyArray<Sink.OutboundEvent>) =>
                sink.publish({ events, deadline: Date.now() + 5_000 })
              yield* send(ofKey("a", 5))
              yield* Effect.promise(() =>
                manager.streams.update(stream, { allow_atomic: false } as Partial<StreamConfig>)
              )
              for (const key of ["b", "c", "d"]) yield* send(ofKey(key, 5))
            })
          )
          assert.deepStrictEqual(lines, [
            "INFO Publishes in atomic batches (NATS_PUBLISH=batch)",
            `WARN Publishes message by message: the stream "${stream}" does not allow atomic batches, set its allow_atomic for NATS_PUBLISH=batch`
          ])
          assert.strictEqual((yield* feed(stream)).length, 20)
          assert.deepStrictEqual((yield* places(stream)).slice(4), ["5", ...Arr.replicate("", 15)])
        })
      )
    })

    describe("auto", () => {
      it.scoped("takes batches for a key with many events, and messages for many keys", () =>
        Effect.gen(function* () {
          const stream = yield* freshStream()
          const sink = yield* makeSink(stream, { publish: "auto" })
          yield* publish(
            sink,
            Arr.makeBy(100, (n) => event(`m${n}`))
          )
          yield* publish(sink, ofKey("a", 100))
          const found = yield* places(stream)
          assert.isTrue(found.slice(0, 100).every((place) => place === ""))
          assert.deepStrictEqual(found.slice(100), numbers(1, 100))
        })
      )

      it.scoped("says at the start what it does", () =>
        Effect.gen(function* () {
          const { server } = yield* Broker
          const start = (stream: string, publish: JetStreamSink.Publish) =>
            linesOf(
              Effect.scoped(JetStreamSink.make({ servers: [server.url], stream, subject: `${stream}.{type}`, publish }))
            )
          const able = yield* freshStream()
          assert.match((yield* start(able, "auto")).join(), /^INFO Publishes in atomic batches where a key has \d+ or/)
          const off = yield* freshStream({ allow_atomic: false })
          assert.deepStrictEqual(yield* start(off, "auto"), [
            `INFO Publishes message by message: the stream "${off}" does not allow atomic batches, set its allow_atomic for NATS_PUBLISH=auto`
          ])
          assert.deepStrictEqual(yield* start(able, "message"), [
            "INFO Publishes message by message (NATS_PUBLISH=message)"
          ])
        })
      )

      it.scoped("allows batches in a stream that the sink creates", () =>
        Effect.gen(function* () {
          const { manager } = yield* Broker
          const stream = yield* freshName
          const sink = yield* makeSink(stream, { manageStream: true })
          const { config } = yield* Effect.promise(() => manager.streams.info(stream))
          assert.strictEqual(config.allow_atomic, true)
          yield* publish(sink, ofKey("a", 3))
          assert.deepStrictEqual(yield* places(stream), ["1", "2", "3"])
        })
      )
    })
  })

  layer(Layer.empty, { excludeTestServices: true, timeout: 300_000 })("in a cluster", (it) => {
    it.scoped("are stored once and in order while other servers become the leader", () =>
      Effect.gen(function* () {
        const servers = yield* natsCluster(3, command)
        const { manager, nc } = yield* connected(servers)
        const stream = yield* freshName
        yield* Effect.tryPromise(() =>
          manager.streams.add({ name: stream, subjects: [`${stream}.>`], num_replicas: 3, allow_atomic: true })
        ).pipe(Effect.retry(Schedule.spaced("200 millis").pipe(Schedule.upTo("60 seconds"))))
        const sink = yield* JetStreamSink.make({
          servers: servers.map(({ url }) => url),
          stream,
          subject: `${stream}.{type}`,
          publish: "batch"
        }).pipe(Effect.provide(silent))
        const stepDown = Effect.promise(() =>
          nc.request(`$JS.API.STREAM.LEADER.STEPDOWN.${stream}`, "", { timeout: 2_000 }).catch(() => undefined)
        )
        const versions: Array<string> = []
        const expected: Array<string> = []
        for (let round = 0; round < 12; round++) {
          const events = ofKey(`r${round}-`, 200)
          const publishing = yield* Effect.fork(Effect.option(publish(sink, events, 3_000)))
          if (round % 2 === 1) yield* stepDown
          yield* Fiber.join(publishing)
          const outcomes = yield* publish(sink, events, 3_000).pipe(
            Effect.filterOrFail(
              (outcomes) => outcomes.every(({ _tag }) => _tag === "Published"),
              () => "in part"
            ),
            Effect.retry(Schedule.spaced("100 millis").pipe(Schedule.upTo("60 seconds")))
          )
          versions.push(...shape(outcomes).map((text) => text.replace(" again", "")))
          expected.push(...ids(events))
        }
        const found = yield* Effect.map(entries(manager, stream), (entries) =>
          entries.map(({ eventId, version }) => `${version} ${eventId}`)
        )
        assert.deepStrictEqual(
          found,
          expected.map((id, index) => `${versions[index]} ${id}`)
        )
      })
    )
  })
})
