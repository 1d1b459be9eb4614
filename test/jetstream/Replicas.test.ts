import { assert, describe, it, vi } from "@effect/vitest"
import type { JetStreamManager, StreamInfo } from "@nats-io/jetstream"
import { headers, nanos } from "@nats-io/transport-node"
import { Array as Arr, Clock, Effect, Fiber, Schedule, Stream } from "effect"
import type { Sink } from "../../src/index.js"
import { JetStreamSink, JetStreamSource } from "../../src/jetstream/index.js"
import * as Nats from "../support/nats.js"
import { natsCluster } from "../support/natsCluster.js"
import { eventually } from "../support/pump.js"
import { connected, event, freshName, makeBroker, publish, silent } from "./support/broker.js"
import { replica } from "./support/replica.js"

vi.setConfig({ testTimeout: 300_000 })

const windowMillis = 1_000

/** Milliseconds for a publish that looks back. */
const patience = 20_000

const sinkOf = (stream: string, ...servers: Arr.NonEmptyReadonlyArray<string>) =>
  Effect.provide(
    JetStreamSink.make({ servers, stream, subject: `${stream}.{type}`, minDuplicateWindow: windowMillis }),
    silent
  )

const sequences = (outcomes: ReadonlyArray<Sink.Outcome>): ReadonlyArray<unknown> =>
  outcomes.map((outcome) => (outcome._tag === "Published" ? [outcome.version, outcome.duplicate] : outcome._tag))

/** What the stream holds, published before its memory of ids began. */
const forgotten = (sink: Sink.Sink["Type"], count: number) =>
  Effect.gen(function* () {
    const createdAt = yield* Clock.currentTimeMillis
    const events = Arr.makeBy(count, (n) => event(`e${n + 1}`, { createdAt }))
    // One after another, so that the n-th has version n.
    for (const each of events) yield* publish(sink, [each], patience)
    yield* Effect.sleep(windowMillis * 1.5)
    return { events, known: events.map((_, n) => [n + 1, true]) }
  })

describe.skipIf(!Nats.available())("A replica that is catching up", () => {
  /** A stream, and what a replica has of it: so many of its first messages. */
  const behind = (has: number, total: number) =>
    Effect.gen(function* () {
      const { manager, server } = yield* makeBroker()
      const name = yield* freshName
      const copy = `c${name.slice(1)}`
      for (const name_ of [name, copy]) {
        yield* Effect.promise(() =>
          manager.streams.add({ name: name_, subjects: [`${name_}.>`], duplicate_window: nanos(windowMillis) })
        )
      }
      const old = yield* forgotten(yield* sinkOf(name, server.url), total)
      const copied = (from: number, to: number) =>
        Effect.promise(async () => {
          for (let n = from; n <= to; n++) {
            const header = headers()
            header.set("Nats-Msg-Id", `e${n}`)
            const text = JSON.stringify({ event_id: `e${n}`, type: "test" })
            await manager.jetstream().publish(`${copy}.test`, text, { headers: header })
          }
        })
      yield* copied(1, has)
      return { ...old, manager, name, copy, copied, proxy: yield* replica(server.port, name, copy) }
    })

  for (const has of [0, 5, 19]) {
    it.scopedLive(`with ${has} of 20 messages hides nothing from the sink`, () =>
      Effect.gen(function* () {
        const { events, known, manager, name, proxy } = yield* behind(has, 20)
        const sink = yield* sinkOf(name, proxy.url)
        const publishing = yield* Effect.fork(publish(sink, events, patience))
        yield* Effect.sleep("1 second")
        yield* proxy.caughtUp
        assert.deepStrictEqual(sequences(yield* Fiber.join(publishing)), known)
        const { state } = yield* Effect.promise(() => manager.streams.info(name))
        assert.strictEqual(state.last_seq, 20)
      })
    )
  }

  it.scopedLive("makes the sink unavailable, not wrong, while it stays behind", () =>
    Effect.gen(function* () {
      const { events, known, manager, name, proxy } = yield* behind(3, 5)
      const sink = yield* sinkOf(name, proxy.url)
      const error = yield* Effect.flip(publish(sink, events, 1_000))
      assert.deepInclude({ ...error }, { _tag: "SinkUnavailable", reason: "timeout" })
      yield* proxy.caughtUp
      assert.deepStrictEqual(sequences(yield* publish(sink, events, patience)), known)
      const { state } = yield* Effect.promise(() => manager.streams.info(name))
      assert.strictEqual(state.last_seq, 5)
    })
  )

  it.scopedLive("is believed where the last messages of the stream were removed", () =>
    Effect.gen(function* () {
      const { events, known, manager, name, proxy } = yield* behind(0, 5)
      yield* proxy.caughtUp
      for (const seq of [3, 5]) yield* Effect.promise(() => manager.streams.deleteMessage(name, seq))
      const sink = yield* sinkOf(name, proxy.url)
      assert.deepStrictEqual(sequences(yield* publish(sink, events, patience)), [
        known[0]!,
        known[1]!,
        [6, false],
        known[3]!,
        [7, false]
      ])
    })
  )

  const follow = (name: string, url: string, after: number) =>
    Effect.gen(function* () {
      const source = yield* JetStreamSource.make({ servers: [url], stream: name })
      const versions: Array<number> = []
      const fiber = yield* source.events(after).pipe(
        Stream.runForEach(({ version }) => Effect.sync(() => versions.push(version))),
        Effect.forkScoped
      )
      return { fiber, versions }
    })

  it.scopedLive("repeats nothing to a node, and is no gap", () =>
    Effect.gen(function* () {
      const { copied, name, proxy } = yield* behind(2, 8)
      const { fiber, versions } = yield* follow(name, proxy.url, 5)
      yield* Effect.sleep("1 second")
      yield* copied(3, 8)
      yield* eventually(
        "the events after the position",
        Effect.sync(() => versions.length >= 3)
      )
      assert.deepStrictEqual(versions, [6, 7, 8])
      assert.isNull(fiber.unsafePoll())
    })
  )

  it.scopedLive("that lacks an event is unavailable, and a gap only where the leader lacks it", () =>
    Effect.gen(function* () {
      const { copy, manager, name, proxy } = yield* behind(8, 8)
      yield* Effect.promise(() => manager.streams.deleteMessage(copy, 7))
      const first = yield* follow(name, proxy.url, 5)
      const error = yield* Effect.flip(Fiber.join(first.fiber))
      assert.deepInclude({ ...error }, { _tag: "SourceError", reason: "unavailable" })
      assert.deepStrictEqual(first.versions, [6])
      yield* Effect.promise(() => manager.streams.deleteMessage(name, 7))
      const second = yield* follow(name, proxy.url, 5)
      assert.deepInclude({ ...(yield* Effect.flip(Fiber.join(second.fiber))) }, { reason: "gap" })
      assert.deepStrictEqual(second.versions, [6])
    })
  )

  it.scopedLive("of a stream that was re-created is not read with the former one's position", () =>
    Effect.gen(function* () {
      const { manager, name, proxy } = yield* behind(0, 3)
      yield* proxy.caughtUp
      const source = yield* JetStreamSource.make({ servers: [proxy.url], stream: name })
      const { identity } = yield* source.look
      yield* Effect.promise(() => manager.streams.delete(name))
      yield* Effect.promise(() => manager.streams.add({ name, subjects: [`${name}.>`] }))
      for (let n = 0; n < 5; n++) yield* Effect.promise(() => manager.jetstream().publish(`${name}.test`, "{}"))
      const error = yield* Effect.flip(Stream.runDrain(source.events(3, identity)))
      assert.deepInclude({ ...error }, { _tag: "SourceError", reason: "replaced" })
    })
  )
})

describe.skipIf(!Nats.available())("A cluster of three servers", () => {
  const replicated = (manager: JetStreamManager, name: string) =>
    Effect.tryPromise(() =>
      manager.streams.add({ name, subjects: [`${name}.>`], num_replicas: 3, duplicate_window: nanos(windowMillis) })
    ).pipe(Effect.retry(Schedule.spaced("200 millis")), Effect.timeout("60 seconds"))

  const follower = (servers: ReadonlyArray<Nats.NatsServer>, { cluster }: StreamInfo) => {
    const name = cluster?.replicas?.find(({ current }) => current)?.name ?? ""
    return servers[Number(name.slice(1)) - 1]!
  }

  it.scopedLive("publishes nothing twice, and shows no gap, while a follower catches up", () =>
    Effect.gen(function* () {
      const servers = yield* natsCluster()
      const { manager } = yield* connected(servers, { timeout: 20_000 })
      const name = yield* freshName
      yield* replicated(manager, name)
      const urls = Arr.map(servers as Arr.NonEmptyReadonlyArray<Nats.NatsServer>, ({ url }) => url)
      const { events, known } = yield* forgotten(yield* sinkOf(name, ...urls), 20)
      const stopped = follower(servers, yield* Effect.promise(() => manager.streams.info(name)))
      yield* Effect.promise(() => stopped.kill())
      const running = servers.filter((server) => server !== stopped)
      const writer = yield* connected(running, { timeout: 20_000 })
      yield* Effect.promise(async () => {
        for (let round = 0; round < 20; round++) {
          const some = Array.from({ length: 1_000 }, () => writer.manager.jetstream().publish(`${name}.other`, "x"))
          await Promise.all(some)
        }
      })
      yield* Effect.promise(() => stopped.start())
      // Each on connections and consumers of its own, some of which land on the one that is behind.
      const looks = Effect.scoped(
        Effect.flatMap(sinkOf(name, ...urls), (sink) =>
          Effect.retry(publish(sink, events, patience), Schedule.spaced("200 millis"))
        )
      )
      const reads = Effect.scoped(
        Effect.gen(function* () {
          const source = yield* JetStreamSource.make({ servers: urls, stream: name })
          const read = yield* source
            .events(20_015)
            .pipe(
              Stream.take(5),
              Stream.runCollect,
              Effect.retry({ while: ({ reason }) => reason === "unavailable", schedule: Schedule.spaced("200 millis") })
            )
          return Array.from(read, ({ version }) => version)
        })
      )
      const all = yield* Effect.all(
        [
          Effect.all(
            Arr.makeBy(4, () => looks),
            { concurrency: 4 }
          ),
          Effect.all(
            Arr.makeBy(4, () => reads),
            { concurrency: 4 }
          )
        ],
        { concurrency: 2 }
      )
      for (const outcomes of all[0]) assert.deepStrictEqual(sequences(outcomes), known)
      for (const versions of all[1]) assert.deepStrictEqual(versions, [20_016, 20_017, 20_018, 20_019, 20_020])
      const { state } = yield* Effect.promise(() => manager.streams.info(name))
      assert.strictEqual(state.last_seq, 20_020)
    })
  )
})
