import { assert, describe, layer } from "@effect/vitest"
import { type JetStreamManager } from "@nats-io/jetstream"
import { Effect, Exit, Fiber, Layer, Redacted, Schedule, Scope, Stream } from "effect"
import { type Source } from "../../src/fleet/index.js"
import { JetStreamSource } from "../../src/jetstream/index.js"
import * as Nats from "../support/nats.js"
import { eventually } from "../support/pump.js"
import { valve } from "../support/valve.js"
import { Broker, freshName, layerBroker, makeBroker } from "./support/broker.js"

const create = (manager: JetStreamManager, name: string) =>
  Effect.promise(() => manager.streams.add({ name, subjects: [`${name}.>`] }))

const publish = (manager: JetStreamManager, stream: string, count: number) =>
  Effect.promise(() =>
    Promise.all(Array.from({ length: count }, (_, n) => manager.jetstream().publish(`${stream}.x`, `{"n":${n}}`)))
  )

const freshStream = Effect.gen(function* () {
  const { manager, server } = yield* Broker
  const stream = yield* freshName
  yield* create(manager, stream)
  const source = yield* JetStreamSource.make({ servers: [server.url], stream })
  return { manager, server, stream, source }
})

/** Reads on in the background. */
const follow = (source: Source.Source["Type"], after = 0) =>
  Effect.gen(function* () {
    const versions: Array<number> = []
    const fiber = yield* source.events(after).pipe(
      Stream.runForEach(({ version }) => Effect.sync(() => versions.push(version))),
      Effect.forkScoped
    )
    return {
      versions,
      reaches: (count: number) =>
        eventually(
          `${count} events`,
          Effect.sync(() => versions.length >= count)
        ),
      error: Effect.timeout(Effect.flip(Fiber.join(fiber)), "40 seconds")
    }
  })

describe.skipIf(!Nats.available())("JetStreamSource", () => {
  layer(layerBroker, { excludeTestServices: true, timeout: 300_000 })((it) => {
    it.scoped("reports a missing stream", () =>
      Effect.gen(function* () {
        const { server } = yield* Broker
        const source = yield* JetStreamSource.make({ servers: [server.url], stream: "nowhere" })
        const error = yield* Effect.flip(source.look)
        assert.deepInclude({ ...error }, { reason: "misconfigured" })
        assert.include(error.message, `There is no stream "nowhere"`)
      })
    )

    it.scoped("fails at once when the stream is deleted while it waits", () =>
      Effect.gen(function* () {
        const { manager, source, stream } = yield* freshStream
        yield* publish(manager, stream, 3)
        const reader = yield* follow(source)
        yield* reader.reaches(3)
        yield* Effect.promise(() => manager.streams.delete(stream))
        const error = yield* reader.error
        assert.deepInclude({ ...error }, { _tag: "SourceError", reason: "misconfigured" })
      })
    )

    it.scoped("fails at a gap between the events", () =>
      Effect.gen(function* () {
        const { manager, source, stream } = yield* freshStream
        yield* publish(manager, stream, 5)
        yield* Effect.promise(() => manager.streams.deleteMessage(stream, 3))
        const reader = yield* follow(source)
        const error = yield* reader.error
        assert.deepInclude({ ...error }, { _tag: "SourceError", reason: "gap" })
        assert.deepStrictEqual(reader.versions, [1, 2])
      })
    )

    it.scoped("fails when what it waits behind is purged from under it", () =>
      Effect.gen(function* () {
        const { manager, source, stream } = yield* freshStream
        yield* publish(manager, stream, 1_500)
        const first = yield* Effect.makeLatch(false)
        const goOn = yield* Effect.makeLatch(false)
        const reading = yield* source.events(0).pipe(
          Stream.runForEach(({ version }) => (version === 1 ? Effect.zipRight(first.open, goOn.await) : Effect.void)),
          Effect.forkScoped
        )
        yield* first.await
        yield* Effect.promise(() => manager.streams.purge(stream))
        yield* goOn.open
        const error = yield* Effect.timeout(Effect.flip(Fiber.join(reading)), "30 seconds")
        assert.deepInclude({ ...error }, { _tag: "SourceError", reason: "gap" })
      })
    )

    it.scoped("holds a bounded number of events for a reader that stalls", () =>
      Effect.gen(function* () {
        const { manager, source, stream } = yield* freshStream
        yield* publish(manager, stream, 2_000)
        const first = yield* Effect.makeLatch(false)
        const goOn = yield* Effect.makeLatch(false)
        let read = 0
        const reading = yield* source.events(0).pipe(
          Stream.take(2_000),
          Stream.runForEach(() => (++read === 1 ? Effect.zipRight(first.open, goOn.await) : Effect.void)),
          Effect.forkScoped
        )
        yield* first.await
        yield* Effect.sleep("300 millis")
        const [consumer] = yield* Effect.promise(() => manager.consumers.list(stream).next())
        assert.isAtMost(consumer!.delivered.stream_seq, 500)
        yield* goOn.open
        yield* Fiber.join(reading)
        assert.strictEqual(read, 2_000)
      })
    )

    it.scoped("gives what has arrived at a time, for whoever applies it together", () =>
      Effect.gen(function* () {
        const { manager, source, stream } = yield* freshStream
        yield* publish(manager, stream, 1_000)
        let chunks = 0
        yield* Stream.chunks(Stream.take(source.events(0), 1_000)).pipe(
          // A node is slower than a server.
          Stream.runForEach(() =>
            Effect.delay(
              Effect.sync(() => ++chunks),
              "5 millis"
            )
          )
        )
        assert.isBelow(chunks, 200)
      })
    )

    it.scoped("leaves no consumer behind", () =>
      Effect.gen(function* () {
        const { manager, source, stream } = yield* freshStream
        yield* publish(manager, stream, 3)
        yield* Stream.runDrain(Stream.take(source.events(0), 3))
        const reader = yield* Effect.fork(Stream.runDrain(source.events(0)))
        yield* eventually(
          "a consumer",
          Effect.promise(async () => (await manager.consumers.list(stream).next()).length === 1)
        )
        yield* Fiber.interrupt(reader)
        const left = yield* Effect.promise(() => manager.consumers.list(stream).next())
        assert.deepStrictEqual(left, [])
      })
    )

    it.scoped(
      "fails where the connection is silent",
      () =>
        Effect.gen(function* () {
          const { manager, server, stream } = yield* freshStream
          const gate = yield* valve(server.port)
          const source = yield* JetStreamSource.make({ servers: [`127.0.0.1:${gate.port}`], stream })
          yield* publish(manager, stream, 2)
          const reader = yield* follow(source)
          yield* reader.reaches(2)
          yield* gate.set({ toClient: "drop", toServer: "drop" })
          const error = yield* reader.error
          assert.deepInclude({ ...error }, { _tag: "SourceError", reason: "unavailable" })
        }),
      300_000
    )

    it.scoped("carries the trace context", () =>
      Effect.gen(function* () {
        const { manager, source, stream } = yield* freshStream
        const { headers } = yield* Effect.promise(() => import("@nats-io/transport-node"))
        const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        const header = headers()
        header.set("traceparent", traceparent)
        yield* Effect.promise(() => manager.jetstream().publish(`${stream}.x`, "{}", { headers: header }))
        const [event] = yield* Stream.runCollect(Stream.take(source.events(0), 1))
        assert.strictEqual(event!.traceparent, traceparent)
      })
    )
  })

  layer(Layer.scoped(Broker, makeBroker()), { excludeTestServices: true, timeout: 300_000 })(
    "when the server goes away",
    (it) => {
      it.scoped("fails, and reads on where it was once the server is back", () =>
        Effect.gen(function* () {
          const { manager, server, source, stream } = yield* freshStream
          yield* publish(manager, stream, 3)
          const reader = yield* follow(source)
          yield* reader.reaches(3)
          yield* Effect.promise(() => server.kill())
          assert.deepInclude({ ...(yield* reader.error) }, { _tag: "SourceError", reason: "unavailable" })
          assert.deepInclude({ ...(yield* Effect.flip(source.look)) }, { reason: "unavailable" })
          yield* Effect.promise(() => server.start())
          // A server that has just started may still be looking for its streams.
          const events = Stream.runCollect(Stream.take(source.events(3), 1)).pipe(
            Effect.retry({ times: 100, schedule: Schedule.spaced("50 millis") })
          )
          const again = yield* Effect.fork(events)
          yield* eventually(
            "the next event",
            Effect.promise(() =>
              manager
                .jetstream()
                .publish(`${stream}.x`, "{}", { timeout: 1_000 })
                .then(
                  () => true,
                  () => false
                )
            )
          )
          const [event] = yield* Fiber.join(again)
          assert.strictEqual(event!.version, 4)
        })
      )
    }
  )

  const withToken = Layer.scoped(
    Broker,
    makeBroker({
      config: () => `accounts { A: { jetstream: enabled, users: [ { user: a, password: b } ] } }\nno_auth_user: a`
    })
  )
  layer(withToken, { excludeTestServices: true, timeout: 300_000 })("with credentials", (it) => {
    it.scoped("reports rejected credentials", () =>
      Effect.gen(function* () {
        const { server } = yield* Broker
        const scope = yield* Scope.make()
        const source = yield* Scope.extend(
          JetStreamSource.make({
            servers: [server.url],
            stream: "any",
            credentials: { _tag: "password", user: "a", password: Redacted.make("wrong") }
          }),
          scope
        )
        const error = yield* Effect.flip(source.look)
        assert.deepInclude({ ...error }, { reason: "misconfigured" })
        yield* Scope.close(scope, Exit.void)
      })
    )
  })
})
