import { assert, describe, layer } from "@effect/vitest"
import { DiscardPolicy, RetentionPolicy, StorageType, type StreamConfig } from "@nats-io/jetstream"
import { nanos } from "@nats-io/transport-node"
import { Array as Arr, Effect, Exit, Layer, Logger, LogLevel, Option, Redacted, Scope } from "effect"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Sink } from "../../src/index.js"
import { JetStreamSink } from "../../src/jetstream/index.js"
import { SinkConformance } from "../../src/testing/index.js"
import * as Nats from "../support/nats.js"
import { eventually } from "../support/pump.js"
import { valve } from "../support/valve.js"
import { Broker, entries, event, freshName, makeBroker, publish, silent } from "./support/broker.js"
import { obeys } from "./support/laws.js"
import { accounts } from "./support/natsAccounts.js"

/** A stream of its own, on subjects that begin with its name. */
const freshStream = (config: Partial<StreamConfig> = {}) =>
  Effect.gen(function* () {
    const { manager } = yield* Broker
    const name = yield* freshName
    yield* Effect.promise(() => manager.streams.add({ name, subjects: [`${name}.>`], ...config }))
    return name
  })

/** The sink on a stream, with subjects that begin with its name. */
const makeSink = (stream: string, options: Partial<JetStreamSink.Options> = {}) =>
  Effect.gen(function* () {
    const { server } = yield* Broker
    return yield* JetStreamSink.make({ servers: [server.url], stream, subject: `${stream}.{type}`, ...options })
  }).pipe(Effect.provide(silent))

const unavailable = (sink: Sink.Sink["Type"], events: Arr.NonEmptyReadonlyArray<Sink.OutboundEvent>, millis?: number) =>
  Effect.flip(publish(sink, events, millis))

const shape = (outcomes: ReadonlyArray<Sink.Outcome>) =>
  outcomes.map((outcome) =>
    outcome._tag === "Published" ? `${outcome.version}${outcome.duplicate ? " again" : ""}` : outcome._tag
  )

const feed = (stream: string) =>
  Effect.flatMap(Broker, ({ manager }) =>
    Effect.map(entries(manager, stream), (entries) => entries.map(({ eventId }) => eventId))
  )

const update = (stream: string, config: Partial<StreamConfig>) =>
  Effect.flatMap(Broker, ({ manager }) => Effect.promise(() => manager.streams.update(stream, config)))

/** What is logged while the sink is built. */
const linesOf = (options: JetStreamSink.Options) =>
  Effect.gen(function* () {
    const lines: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => {
      lines.push(`${logLevel.label} ${Arr.ensure(message).join(" ")}`)
    })
    yield* Effect.scoped(JetStreamSink.make(options)).pipe(
      Effect.provide(Layer.merge(Logger.replace(Logger.defaultLogger, logger), Logger.minimumLogLevel(LogLevel.Info)))
    )
    return lines
  })

const sleep = (millis: number) => Effect.promise(() => new Promise((resolve) => setTimeout(resolve, millis)))

describe.skipIf(!Nats.available())("JetStreamSink", () => {
  layer(Layer.scoped(Broker, makeBroker()), { excludeTestServices: true, timeout: 300_000 })((it) => {
    for (const deduplication of ["lookup", "subject"] as const) {
      describe(`the laws of sinks, with deduplication by ${deduplication}`, () => {
        for (const law of SinkConformance.sinkConformance) {
          it.scoped(law.name, () => obeys(law, { deduplication }))
        }
      })
    }

    describe("a message", () => {
      it.scoped("is the exact payload, with the id, type, tenant and trace context in its headers", () =>
        Effect.gen(function* () {
          const { manager } = yield* Broker
          const stream = yield* freshStream()
          const sink = yield* makeSink(stream)
          const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
          const given = event("id 1", { type: "stack.activated", tenant: "t\n1", traceparent })
          assert.deepStrictEqual(shape(yield* publish(sink, [given])), ["1"])
          const message = yield* Effect.promise(() => manager.streams.getMessage(stream, { seq: 1 }))
          assert.strictEqual(message!.string(), given.payload)
          assert.strictEqual(message!.subject, `${stream}.stack.activated`)
          assert.deepStrictEqual(Object.fromEntries(message!.header), {
            "Nats-Msg-Id": ["id%201"],
            "Nats-Expected-Stream": [stream],
            "Control-Event-Type": ["stack.activated"],
            "Control-Event-Tenant": ["t%0A1"],
            traceparent: [traceparent]
          })
        })
      )
    })

    describe("at the start", () => {
      const options = (stream: string, more: Partial<JetStreamSink.Options> = {}) =>
        Effect.map(Broker, ({ server }) => ({ servers: [server.url], stream, subject: `${stream}.{type}`, ...more }))

      it.scoped("logs its findings", () =>
        Effect.gen(function* () {
          const stream = yield* freshStream()
          const lines = yield* linesOf(yield* options(stream))
          assert.match(lines[0]!, /^INFO Connected to 127\.0\.0\.1:\d+ \(nats-server \d+\./)
          assert.match(
            lines.at(-1)!,
            /^INFO Publishes message by message: (nats-server 2\.|the stream "\w+" does not allow)/
          )
          assert.deepStrictEqual(lines.slice(1, -1), [
            `INFO The stream "${stream}" is there, and JetStream is on`,
            `INFO The stream "${stream}" takes ${stream}.>`,
            `INFO The stream "${stream}" keeps its messages on disk`,
            `INFO The stream "${stream}" has a duplicate window of 2m`
          ])
        })
      )

      it.scoped("warns of a stream that takes some of the subjects only", () =>
        Effect.gen(function* () {
          const name = yield* freshName
          const stream = yield* freshStream({ subjects: [`${name}.a`] })
          const lines = yield* linesOf(yield* options(stream, { subject: `${name}.{type}` }))
          assert.strictEqual(
            lines[2],
            `WARN The stream "${stream}" takes ${name}.a of ${name}.>: an event for another subject is parked, so let it take ${name}.>`
          )
        })
      )

      it.scoped("creates a missing stream with the configured window if manageStream is set", () =>
        Effect.gen(function* () {
          const { manager } = yield* Broker
          const stream = yield* freshName
          yield* linesOf(yield* options(stream, { manageStream: true, minDuplicateWindow: "5 minutes" }))
          const { config } = yield* Effect.promise(() => manager.streams.info(stream))
          assert.deepStrictEqual(
            [config.subjects, config.storage, config.duplicate_window],
            [[`${stream}.>`], StorageType.File, nanos(300_000)]
          )
        })
      )

      for (const [what, config, line] of [
        ["does not take the subjects", { subjects: ["elsewhere.a"] }, /takes elsewhere\.a, and not .*: add that/],
        [
          "keeps messages in memory",
          { storage: StorageType.Memory },
          /in memory and .*: re-create it with file storage/
        ],
        [
          "forgets ids too soon",
          { duplicate_window: nanos(1_000) },
          /has a duplicate window of 1s, the minimum is 2m: raise its/
        ],
        [
          "removes what was consumed",
          { retention: RetentionPolicy.Workqueue },
          /removes messages as its consumers take them \(retention workqueue\): re-create it with retention limits/
        ],
        ["acknowledges nothing", { no_ack: true }, /acknowledges no messages \(no_ack\): turn that off/]
      ] satisfies ReadonlyArray<readonly [string, Partial<StreamConfig>, RegExp]>) {
        it.scoped(`says that the stream ${what}, in one line, and publishes nothing there`, () =>
          Effect.gen(function* () {
            const stream = yield* freshStream(config)
            const [, last, ...more] = yield* linesOf(yield* options(stream))
            assert.match(last!, /^ERROR Nothing can be published yet\. The stream "/)
            assert.match(last!, line)
            assert.deepStrictEqual(more, [])
            const error = yield* unavailable(yield* makeSink(stream), [event("a")])
            assert.strictEqual(error.reason, "misconfigured")
            assert.match(error.message, line)
            const { manager } = yield* Broker
            yield* Effect.promise(() => manager.streams.delete(stream))
          })
        )
      }

      it.scoped("reports a missing stream, and publishes as soon as it exists", () =>
        Effect.gen(function* () {
          const { manager } = yield* Broker
          const stream = yield* freshName
          const [, last] = yield* linesOf(yield* options(stream))
          assert.match(
            last!,
            /^ERROR Nothing can be published yet\. There is no stream "\w+": create it, or start with/
          )
          const sink = yield* makeSink(stream)
          assert.strictEqual((yield* unavailable(sink, [event("a")])).reason, "misconfigured")
          yield* Effect.promise(() => manager.streams.add({ name: stream, subjects: [`${stream}.>`] }))
          assert.deepStrictEqual(shape(yield* publish(sink, [event("a")])), ["1"])
        })
      )

      it.scoped("reports unreachable servers, and publishes as soon as one answers", () =>
        Effect.gen(function* () {
          const broker = yield* makeBroker()
          const { manager, server } = broker
          yield* Effect.promise(() => manager.streams.add({ name: "s", subjects: ["s.>"] }))
          yield* Effect.promise(() => server.kill())
          const options = { servers: [server.url], stream: "s", subject: "s.{type}" }
          const [first, ...more] = yield* linesOf(options)
          assert.match(first!, /^WARN Nothing can be published yet\. Cannot connect to nats:\S+: connection refused$/)
          assert.deepStrictEqual(more, [])
          const sink = yield* JetStreamSink.make(options).pipe(Effect.provide(silent))
          assert.strictEqual((yield* unavailable(sink, [event("a")])).reason, "unreachable")
          yield* Effect.promise(() => server.start())
          assert.deepStrictEqual(shape(yield* publish(sink, [event("a")])), ["1"])
        })
      )

      it.scoped("reports that JetStream is disabled", () =>
        Effect.gen(function* () {
          const { server } = yield* makeBroker({ jetStream: false })
          const [, last] = yield* linesOf({ servers: [server.url], stream: "s" })
          assert.match(last!, /^ERROR Nothing can be published yet\. JetStream is disabled: enable it/)
        })
      )

      it.scoped("rejects invalid options by their names", () =>
        Effect.gen(function* () {
          const reason = (options: Partial<JetStreamSink.Options>) =>
            Effect.map(
              Effect.flip(JetStreamSink.make({ servers: ["nats://h:1"], stream: "s", ...options })),
              ({ message }) => message
            )
          assert.match(yield* reason({ servers: [] }), /^JetStreamSink, servers: is empty$/)
          const address = yield* reason({ servers: ["nats://u:s3cret@h:1"] })
          assert.match(address, /^JetStreamSink, servers: .*: set credentials instead$/)
          assert.notInclude(address, "s3cret")
          assert.match(yield* reason({ stream: "a.b" }), /^JetStreamSink, stream: got "a\.b", valid is/)
          assert.match(
            yield* reason({ subject: "a.{b}" }),
            /^JetStreamSink, subject: got "a\.\{b\}": \{b\} is not one of/
          )
          assert.match(yield* reason({ minDuplicateWindow: "1 millis" }), /^JetStreamSink, minDuplicateWindow: valid/)
        })
      )
    })

    describe("an event that can never be taken", () => {
      it.scoped("is rejected for its size, and affects no other event", () =>
        Effect.gen(function* () {
          const stream = yield* freshStream()
          const sink = yield* makeSink(stream)
          const events = Arr.make(
            event("a1", { key: "a" }),
            event("a2", { key: "a", text: "x".repeat(2 * 1024 * 1024) }),
            event("a3", { key: "a" }),
            event("b1", { key: "b" })
          )
          const outcomes = yield* publish(sink, events)
          assert.deepStrictEqual(shape(outcomes), ["1", "EventRejected", "NotAttempted", "2"])
          assert.match(
            (outcomes[1] as Sink.EventRejected).message,
            /^It has 2\d{6} bytes .* at most 1048576 \(max_payload\)/
          )
          assert.deepStrictEqual(shape(yield* publish(sink, [events[2]!, event("c1")])).sort(), ["3", "4"])
        })
      )

      it.scoped("is rejected from the byte on that the server would reject", () =>
        Effect.gen(function* () {
          const stream = yield* freshStream()
          const sink = yield* makeSink(stream)
          const room = 1_048_576 - Buffer.byteLength(JSON.stringify({ event_id: "a", type: "test", text: "" }))
          const headers = `NATS/1.0\r\nNats-Msg-Id: a\r\nNats-Expected-Stream: ${stream}\r\nControl-Event-Type: test\r\n\r\n`
          const fits = event("a", { text: "x".repeat(room - headers.length) })
          const over = event("b", { text: "x".repeat(room - headers.length + 1) })
          assert.deepStrictEqual(shape(yield* publish(sink, [fits, over])), ["1", "EventRejected"])
        })
      )

      it.scoped("is rejected for the stream's limit of a message", () =>
        Effect.gen(function* () {
          const stream = yield* freshStream({ max_msg_size: 10_000 })
          const sink = yield* makeSink(stream)
          const outcomes = yield* publish(sink, [event("a", { text: "x".repeat(10_000) }), event("b")])
          assert.deepStrictEqual(shape(outcomes), ["EventRejected", "1"])
          assert.match((outcomes[0] as Sink.EventRejected).message, /message size exceeds maximum allowed \(10054\)/)
        })
      )

      it.scoped("is rejected for a subject that the stream does not take, while it takes others", () =>
        Effect.gen(function* () {
          const name = yield* freshName
          const stream = yield* freshStream({ subjects: [`${name}.a`, `${name}.b`] })
          const sink = yield* makeSink(stream, { subject: `${name}.{type}` })
          // Somebody who listens there, and so nobody says that no stream does.
          const { nc } = yield* Broker
          nc.subscribe(`${name}.c`)
          yield* Effect.promise(() => nc.flush())
          const outcomes = yield* publish(sink, [
            event("1", { type: "a" }),
            event("2", { type: "c" }),
            event("3", { type: "d" })
          ])
          assert.deepStrictEqual(shape(outcomes), ["1", "EventRejected", "EventRejected"])
          assert.match(
            (outcomes[1] as Sink.EventRejected).message,
            /^Its subject \w+\.c is none of the stream's, which takes/
          )
        })
      )

      it.scoped("is accepted with a lone surrogate in its type, and affects no other event", () =>
        Effect.gen(function* () {
          const sink = yield* makeSink(yield* freshStream())
          assert.deepStrictEqual(shape(yield* publish(sink, [event("1", { type: "t\ud800" }), event("2")])).sort(), [
            "1",
            "2"
          ])
        })
      )

      it.scoped("is rejected for a subject that no server reads", () =>
        Effect.gen(function* () {
          const sink = yield* makeSink(yield* freshStream())
          const outcomes = yield* publish(sink, [event("1", { type: "t".repeat(5_000) }), event("2")])
          assert.deepStrictEqual(shape(outcomes), ["EventRejected", "1"])
        })
      )
    })

    describe("the stream", () => {
      it.scoped("that has no room makes the sink unavailable, until it has", () =>
        Effect.gen(function* () {
          const stream = yield* freshStream({ max_msgs: 2, discard: DiscardPolicy.New })
          const sink = yield* makeSink(stream)
          yield* publish(sink, [event("a"), event("b")])
          const error = yield* unavailable(sink, [event("c")])
          assert.deepStrictEqual([error.reason, error.message], ["full", "maximum messages exceeded (10077)"])
          yield* update(stream, { max_msgs: 3 })
          assert.deepStrictEqual(shape(yield* publish(sink, [event("c")])), ["3"])
        })
      )

      it.scoped("that is deleted makes the sink unavailable, until it is back", () =>
        Effect.gen(function* () {
          const { manager } = yield* Broker
          const stream = yield* freshStream()
          const sink = yield* makeSink(stream, { manageStream: true })
          yield* publish(sink, [event("a"), event("b")])
          yield* Effect.promise(() => manager.streams.delete(stream))
          for (let n = 0; n < 2; n++) {
            const error = yield* unavailable(sink, [event("c"), event("d", { key: "c" })])
            assert.strictEqual(error.reason, "misconfigured")
            assert.match(error.message, /^There is no stream/)
          }
          yield* Effect.promise(() => manager.streams.add({ name: stream, subjects: [`${stream}.>`] }))
          assert.deepStrictEqual(shape(yield* publish(sink, [event("c"), event("d", { key: "c" })])), ["1", "2"])
        })
      )

      it.scoped("whose subjects go to another one costs no event anything", () =>
        Effect.gen(function* () {
          const name = yield* freshName
          const stream = yield* freshStream({ subjects: [`${name}.>`] })
          const sink = yield* makeSink(stream, { subject: `${name}.{type}` })
          yield* publish(sink, [event("a")])
          yield* update(stream, { subjects: ["nothing.of.it"] })
          const other = yield* freshStream({ subjects: [`${name}.>`] })
          const error = yield* unavailable(sink, [event("b")])
          assert.strictEqual(error.reason, "misconfigured")
          assert.match(error.message, /takes nothing\.of\.it, and not/)
          assert.deepStrictEqual(yield* feed(other), [])
          const { manager } = yield* Broker
          yield* Effect.promise(() => manager.streams.delete(other))
          yield* update(stream, { subjects: [`${name}.>`] })
          assert.deepStrictEqual(shape(yield* publish(sink, [event("b")])), ["2"])
        })
      )
    })

    describe("an acknowledgement that is lost", () => {
      for (const deduplication of ["lookup", "subject"] as const) {
        for (const [when, pause] of [
          ["within", 0],
          ["beyond", 1_500]
        ] as const) {
          it.scoped(`leaves one copy, published again ${when} the duplicate window, by ${deduplication}`, () =>
            Effect.gen(function* () {
              const { server } = yield* Broker
              const stream = yield* freshStream({ duplicate_window: nanos(1_000) })
              const gate = yield* valve(server.port)
              const options = {
                deduplication,
                minDuplicateWindow: "1 second",
                servers: [`127.0.0.1:${gate.port}`]
              } as const
              const events = Arr.make(event("a1", { key: "a" }), event("a2", { key: "a" }), event("b1", { key: "b" }))
              const scope = yield* Scope.make()
              const first = yield* makeSink(stream, options).pipe(Scope.extend(scope))
              yield* publish(first, [event("z")])
              yield* gate.set({ toClient: "drop" })
              const lost = yield* unavailable(first, events, 300)
              assert.strictEqual(lost.reason, "timeout")
              yield* Scope.close(scope, Exit.void)
              yield* gate.set({ toClient: "pass" })
              assert.deepStrictEqual((yield* feed(stream)).sort(), ["a1", "b1", "z"])
              yield* sleep(pause)
              const second = yield* makeSink(stream, options)
              const outcomes = yield* publish(second, events)
              const sequence = (yield* feed(stream)).indexOf("a1") + 1
              assert.deepStrictEqual(shape(outcomes), [`${sequence} again`, "4", `${5 - sequence} again`])
              assert.deepStrictEqual((yield* feed(stream)).slice().sort(), ["a1", "a2", "b1", "z"])
            })
          )
        }
      }

      it.scoped(
        "beyond the window is found behind what was published since, and after a restart of the stream's server",
        () =>
          Effect.gen(function* () {
            const broker = yield* makeBroker()
            yield* Effect.gen(function* () {
              const stream = yield* freshStream({ duplicate_window: nanos(1_000) })
              const options = { minDuplicateWindow: "1 second" } as const
              const start = Date.now()
              const first = yield* makeSink(stream, options)
              const events = Arr.make(event("old", { createdAt: start }))
              yield* publish(first, events)
              const many = Arr.makeBy(3_000, (n) => event(`n${n}`))
              yield* publish(first, many)
              yield* Effect.promise(() => broker.server.kill())
              yield* Effect.promise(() => broker.server.start())
              yield* sleep(1_200)
              const sink = yield* makeSink(stream, options)
              assert.deepStrictEqual(shape(yield* publish(sink, events)), ["1 again"])
              // What another pump publishes meanwhile is found as well, and what it publishes of older ones.
              const late = Arr.make(
                event("late", { createdAt: start + 1 }),
                event("older", { createdAt: start - 60_000 })
              )
              yield* publish(first, [late[0]])
              yield* sleep(1_200)
              assert.deepStrictEqual(shape(yield* publish(sink, late)), ["3002 again", "3003"])
            }).pipe(Effect.provideService(Broker, broker))
          })
      )

      it.scoped("is looked for further in each publish that has no time to read it all", () =>
        Effect.gen(function* () {
          const { manager } = yield* Broker
          const stream = yield* freshStream({ duplicate_window: nanos(1_000) })
          const options = { minDuplicateWindow: "1 second" } as const
          const first = yield* makeSink(stream, options)
          const start = Date.now()
          const old = event("old", { createdAt: start })
          yield* publish(first, [old])
          const events = Arr.makeBy(40_000, (n) => event(`n${n}`))
          yield* publish(first, events, 30_000)
          yield* sleep(1_300)
          const sink = yield* makeSink(stream, options)
          // Reads what was published since it was appended, which is nothing.
          assert.deepStrictEqual(shape(yield* publish(sink, [event("late")])), ["40002"])
          const before = Date.now()
          let tries = 0
          let outcomes: ReadonlyArray<string> = []
          while (outcomes.length === 0 && Date.now() - before < 20_000) {
            tries++
            outcomes = yield* Effect.orElseSucceed(Effect.map(publish(sink, [old], 100), shape), () => [])
          }
          assert.deepStrictEqual(outcomes, ["1 again"])
          assert.isAbove(tries, 1)
          const consumers = yield* Effect.promise(() => manager.consumers.list(stream).next())
          assert.isTrue(consumers.every(({ config }) => config.inactive_threshold === nanos(10_000)))
        })
      )

      it.scoped("is looked for in a stream that was re-created while nothing was published", () =>
        Effect.gen(function* () {
          const { manager } = yield* Broker
          const config = { duplicate_window: nanos(1_000) }
          const stream = yield* freshStream(config)
          const sink = yield* makeSink(stream, { minDuplicateWindow: "1 second" })
          const createdAt = Date.now() - 60_000
          yield* publish(sink, [event("a", { createdAt }), event("b", { createdAt })])
          yield* publish(sink, [event("c", { createdAt })])
          yield* Effect.promise(() => manager.streams.delete(stream))
          yield* Effect.promise(() => manager.streams.add({ name: stream, subjects: [`${stream}.>`], ...config }))
          const other = yield* makeSink(stream, { minDuplicateWindow: "1 second" })
          assert.deepStrictEqual(shape(yield* publish(other, [event("d", { createdAt })])), ["1"])
          yield* sleep(1_200)
          assert.deepStrictEqual(shape(yield* publish(sink, [event("d", { createdAt })])), ["1 again"])
        })
      )

      it.scoped("is looked for in the stream that is there, not in one that it replaced", () =>
        Effect.gen(function* () {
          const { manager } = yield* Broker
          const config = { duplicate_window: nanos(1_000) }
          const stream = yield* freshStream(config)
          const sink = yield* makeSink(stream, { minDuplicateWindow: "1 second" })
          const createdAt = Date.now() - 60_000
          const events = Arr.make(event("a", { createdAt }), event("b", { createdAt }))
          assert.deepStrictEqual(shape(yield* publish(sink, events)).sort(), ["1", "2"])
          yield* sleep(1_200)
          assert.deepStrictEqual(shape(yield* publish(sink, events)).sort(), ["1 again", "2 again"])
          yield* Effect.promise(() => manager.streams.delete(stream))
          yield* Effect.promise(() => manager.streams.add({ name: stream, subjects: [`${stream}.>`], ...config }))
          assert.deepStrictEqual(shape(yield* publish(sink, events)).sort(), ["1", "2"])
        })
      )
    })

    describe("a connection", () => {
      it.scoped("that is lost keeps nothing to send later, and is made again", () =>
        Effect.gen(function* () {
          const broker = yield* makeBroker()
          yield* Effect.gen(function* () {
            const { server } = broker
            const stream = yield* freshStream()
            const sink = yield* makeSink(stream)
            yield* publish(sink, [event("a")])
            yield* Effect.promise(() => server.kill())
            assert.strictEqual((yield* unavailable(sink, [event("b")])).reason, "unreachable")
            assert.strictEqual((yield* unavailable(sink, [event("c")])).reason, "unreachable")
            yield* Effect.promise(() => server.start())
            assert.deepStrictEqual(shape(yield* publish(sink, [event("d")])), ["2"])
            yield* sleep(200)
            assert.deepStrictEqual(yield* feed(stream), ["a", "d"])
          }).pipe(Effect.provideService(Broker, broker))
        })
      )

      it.scoped("that is half-open is given up at the deadline, and what it holds is not sent later", () =>
        Effect.gen(function* () {
          const { server } = yield* Broker
          const stream = yield* freshStream()
          const gate = yield* valve(server.port)
          const sink = yield* makeSink(stream, { servers: [`127.0.0.1:${gate.port}`] })
          yield* publish(sink, [event("a")])
          yield* gate.set({ toServer: "drop", toClient: "drop" })
          const before = Date.now()
          // More than sockets and the kernel hold.
          const large = Arr.makeBy(40, (n) => event(`l${n}`, { text: "x".repeat(900_000) }))
          assert.strictEqual((yield* unavailable(sink, large, 500)).reason, "timeout")
          assert.isBelow(Date.now() - before, 3_000)
          yield* gate.set({ toServer: "pass", toClient: "pass" })
          assert.deepStrictEqual(shape(yield* publish(sink, [event("b")])), ["2"])
          assert.deepStrictEqual(yield* feed(stream), ["a", "b"])
        })
      )

      it.scoped("that breaks while a batch is in flight loses and doubles nothing", () =>
        Effect.gen(function* () {
          const { manager, server } = yield* Broker
          const stream = yield* freshStream()
          const gate = yield* valve(server.port)
          const sink = yield* makeSink(stream, { servers: [`127.0.0.1:${gate.port}`] })
          const events = Arr.makeBy(2_000, (n) => event(`${n}`, { key: `${n % 20}` }))
          const publishing = yield* Effect.fork(Effect.option(publish(sink, events)))
          const stored = Effect.promise(async () => (await manager.streams.info(stream)).state.messages)
          yield* eventually(
            "some events are in the feed",
            Effect.map(stored, (messages) => messages > 100)
          )
          yield* gate.cut
          const first = Option.getOrElse(yield* publishing, () => [])
          assert.isBelow(first.filter((outcome) => outcome._tag === "Published").length, 2_000)
          const outcomes = yield* publish(sink, events)
          assert.isTrue(outcomes.every((outcome) => outcome._tag === "Published"))
          const ids = yield* feed(stream)
          assert.strictEqual(ids.length, 2_000)
          for (let key = 0; key < 20; key++) {
            const ofKey = ids.filter((id) => Number(id) % 20 === key).map(Number)
            assert.deepStrictEqual(
              ofKey,
              ofKey.toSorted((one, other) => one - other)
            )
          }
        })
      )

      it.scoped("that is slow gets through what it can until the deadline", () =>
        Effect.gen(function* () {
          const { server } = yield* Broker
          const stream = yield* freshStream()
          const gate = yield* valve(server.port)
          const sink = yield* makeSink(stream, { servers: [`127.0.0.1:${gate.port}`] })
          yield* publish(sink, [event("z")])
          yield* gate.set({ toClient: "hold" })
          const events = Arr.makeBy(10, (n) => event(`a${n}`, { key: "a" }))
          // It waits a quarter longer than until the deadline for what is on its way.
          const publishing = yield* Effect.fork(publish(sink, events, 3_000))
          yield* sleep(3_100)
          yield* gate.set({ toClient: "pass" })
          const outcomes = yield* publishing
          assert.deepStrictEqual(shape(outcomes).slice(0, 2), ["2", "NotAttempted"])
          assert.deepStrictEqual(yield* feed(stream), ["z", "a0"])
        })
      )
    })
  })

  layer(Layer.empty, { excludeTestServices: true, timeout: 300_000 })("with credentials", (it) => {
    const tls = new URL("../support/tls/", import.meta.url).pathname

    const publishes = (options: JetStreamSink.Options) =>
      Effect.scoped(
        Effect.flatMap(JetStreamSink.make({ manageStream: true, ...options }).pipe(Effect.provide(silent)), (sink) =>
          publish(sink, [event("a")])
        )
      )
    const refused = (options: JetStreamSink.Options) =>
      Effect.map(Effect.flip(publishes(options)), ({ message, reason }) => `${reason}: ${message}`)

    it.scoped("connects with a token, and reports a rejected one", () =>
      Effect.gen(function* () {
        const server = yield* Nats.nats({ config: () => `authorization { token: "s3cret" }` })
        const options = { servers: [server.url], stream: "s" }
        const token = (text: string) => ({ _tag: "token", token: Redacted.make(text) }) as const
        yield* publishes({ ...options, credentials: token("s3cret") })
        const message = yield* refused({ ...options, credentials: token("wr0ng") })
        assert.match(message, /^misconfigured: Cannot connect to nats:.*Authorization Violation.*credentials/)
        assert.notInclude(message, "wr0ng")
      })
    )

    it.scoped("connects with user and password, and publishes once it is permitted to", () =>
      Effect.gen(function* () {
        const config = (subjects: string) => `authorization { users: [
          { user: "u", password: "s3cret", permissions: { publish: ["$JS.API.>", "${subjects}"], subscribe: "_INBOX.>" } } ] }`
        const server = yield* Nats.nats({ config: () => config("other.>") })
        const credentials = { _tag: "password", user: "u", password: Redacted.make("s3cret") } as const
        const sink = yield* JetStreamSink.make({
          servers: [server.url],
          stream: "s",
          manageStream: true,
          credentials
        }).pipe(Effect.provide(silent))
        const error = yield* unavailable(sink, [event("a")])
        assert.strictEqual(error.reason, "misconfigured")
        assert.match(error.message, /^Cannot publish: .*Publish to "control\.events\.test".*permissions$/)
        const path = join(server.directory, "nats.conf")
        writeFileSync(path, readFileSync(path, "utf8").replace("other.>", "control.events.>"))
        process.kill(server.pid()!, "SIGHUP")
        yield* eventually(
          "the permission is there",
          Effect.map(Effect.option(publish(sink, [event("a")])), Option.isSome)
        )
      })
    )

    it.scoped("connects with a creds file", () =>
      Effect.gen(function* () {
        const { config, creds } = accounts()
        const server = yield* Nats.nats({ config: () => config })
        const options = { servers: [server.url], stream: "s" }
        yield* publishes({ ...options, credentials: { _tag: "creds", creds: Redacted.make(creds) } })
        assert.match(yield* refused(options), /^misconfigured: /)
      })
    )

    it.scoped("connects by TLS, with a certificate if the server requires one", () =>
      Effect.gen(function* () {
        const config = (verify: boolean) => () =>
          `tls { cert_file: "${tls}server.pem", key_file: "${tls}server.key", ca_file: "${tls}ca.pem", verify: ${verify} }`
        const plain = yield* Nats.nats({ config: config(false) })
        const verifying = yield* Nats.nats({ config: config(true) })
        const of = (server: Nats.NatsServer) => ({ servers: [`tls://localhost:${server.port}`], stream: "s" })
        const caFile = `${tls}ca.pem`
        yield* publishes({ ...of(plain), tls: { caFile } })
        assert.match(yield* refused(of(plain)), /^misconfigured: Cannot connect to tls:.*certificate/)
        yield* publishes({
          ...of(verifying),
          tls: { caFile, certFile: `${tls}client.pem`, keyFile: `${tls}client.key` }
        })
        assert.match(yield* refused({ ...of(verifying), tls: { caFile } }), /Cannot connect to/)
        // A server without TLS is not spoken to in the clear where tls:// was asked for.
        const open = yield* Nats.nats()
        assert.match(
          yield* refused({ servers: [`tls://localhost:${open.port}`], stream: "s" }),
          /Cannot connect to tls:/
        )
      })
    )

    it.scoped("connects to another server if one is down", () =>
      Effect.gen(function* () {
        const server = yield* Nats.nats()
        const down = yield* Effect.promise(Nats.freePort)
        yield* publishes({ servers: [`nats://127.0.0.1:${down}`, server.url], stream: "s" })
      })
    )
  })
})
