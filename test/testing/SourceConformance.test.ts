import { assert, describe, it } from "@effect/vitest"
import { jetstreamManager, type JetStreamManager } from "@nats-io/jetstream"
import { connect } from "@nats-io/transport-node"
import { Chunk, Context, Effect, Layer, Stream } from "effect"
import { randomBytes } from "node:crypto"
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import { afterAll, beforeAll } from "vitest"
import { type ControlEvent, ControlVersion, EventId, OrderingKey, Sink } from "../../src/index.js"
import { FileSink, FileSource } from "../../src/file/index.js"
import { Source } from "../../src/fleet/index.js"
import { JetStreamSource } from "../../src/jetstream/index.js"
import { MemorySource, SourceConformance } from "../../src/testing/index.js"
import * as Nats from "../support/nats.js"
import { openValve } from "../support/valve.js"

const { missingHooks, sourceConformance } = SourceConformance

/** A law that lacks a hook is reported as skipped. */
const suite = <Feed>(name: string, harness: SourceConformance.Harness<Feed>) =>
  describe(name, () => {
    for (const law of sourceConformance) {
      it.live.skipIf(missingHooks(law, harness).length > 0)(law.name, () => law.run(harness), 300_000)
    }
  })

const memory = (broken: (source: Source.Source["Type"]) => Source.Source["Type"] = (source) => source) => {
  const control = (feed: Context.Context<MemorySource.MemorySource>) => Context.get(feed, MemorySource.MemorySource)
  return SourceConformance.harness({
    empty: Layer.build(MemorySource.layer),
    layer: (feed) => Layer.succeed(Source.Source, broken(Context.get(feed, Source.Source))),
    append: (feed, texts) => control(feed).append(texts),
    removeUpTo: (feed, version) => control(feed).removeUpTo(version),
    replace: (feed) => control(feed).replace,
    sever: (feed) => Effect.acquireRelease(control(feed).setAvailable(false), () => control(feed).setAvailable(true))
  })
}

suite("memory", memory())

const outbound = (payload: string): Sink.OutboundEvent => {
  const event = JSON.parse(payload) as ControlEvent.ControlEvent
  return {
    eventId: EventId.make(event.event_id),
    orderingKey: OrderingKey.make(""),
    event,
    payload,
    traceparent: undefined,
    createdAt: 0,
    attemptCount: 0
  }
}

/** Publishes through the sink, as the feed is made. */
const publish = (directory: string, texts: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const sink = yield* Sink.Sink
    const [first, ...rest] = texts.map(outbound)
    const outcomes = yield* sink.publish({ events: [first!, ...rest], deadline: Date.now() + 60_000 })
    return outcomes.map((outcome) => (outcome as Sink.Published).version)
  }).pipe(Effect.provide(FileSink.layer({ directory })))

suite(
  "file",
  SourceConformance.harness<string>({
    empty: Effect.acquireRelease(
      Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "file-source-"))),
      (directory) => Effect.promise(() => Fs.rm(directory, { recursive: true }))
    ),
    layer: (directory) => FileSource.layer({ directory }),
    append: publish,
    replace: (directory) =>
      Effect.promise(async () => {
        for (const name of await Fs.readdir(directory)) await Fs.rm(Path.join(directory, name), { recursive: true })
      }),
    spoil: (directory) => Effect.promise(() => Fs.writeFile(Path.join(directory, "spoilt.json"), `{"event_id":"spo`))
  })
)

describe.skipIf(!Nats.available())("jetstream", () => {
  interface Broker {
    readonly server: Awaited<ReturnType<typeof Nats.startNats>>
    readonly manager: JetStreamManager
    readonly close: () => Promise<void>
  }
  let broker: Broker

  beforeAll(async () => {
    const server = await Nats.startNats()
    const nc = await connect({ servers: server.url })
    const manager = await jetstreamManager(nc)
    broker = {
      server,
      manager,
      close: async () => {
        await nc.close()
        await server.close()
      }
    }
  }, 30_000)
  afterAll(() => broker.close())

  interface Feed {
    readonly stream: string
    readonly port: number
    /** Cuts every connection, and takes no other one until it is opened. */
    readonly setOpen: (open: boolean) => void
  }

  const create = (stream: string) => broker.manager.streams.add({ name: stream, subjects: [`${stream}.>`] })

  suite(
    "on a real server",
    SourceConformance.harness<Feed>({
      empty: Effect.gen(function* () {
        const stream = `s${randomBytes(6).toString("hex")}`
        yield* Effect.promise(() => create(stream))
        let isOpen = true
        const valve = yield* Effect.acquireRelease(
          Effect.promise(() => openValve(() => (isOpen ? broker.server.port : 1))),
          (valve) => Effect.sync(() => valve.close())
        )
        const setOpen = (open: boolean) => {
          isOpen = open
          valve.cut()
        }
        return { stream, port: valve.port, setOpen }
      }),
      layer: ({ port, stream }) => JetStreamSource.layer({ servers: [`127.0.0.1:${port}`], stream }),
      append: ({ stream }, texts) =>
        Effect.promise(async () => {
          const js = broker.manager.jetstream()
          const acks = await Promise.all(texts.map((text) => js.publish(`${stream}.x`, text)))
          return acks.map(({ seq }) => seq)
        }),
      removeUpTo: ({ stream }, version) =>
        Effect.promise(() => broker.manager.streams.purge(stream, { seq: version + 1 })),
      replace: ({ stream }) =>
        Effect.promise(async () => {
          await broker.manager.streams.delete(stream)
          await create(stream)
        }),
      sever: ({ setOpen }) =>
        Effect.acquireRelease(
          Effect.sync(() => setOpen(false)),
          () => Effect.sync(() => setOpen(true))
        )
    })
  )
})

describe("a source that breaks a law", () => {
  type Break = (source: Source.Source["Type"]) => Source.Source["Type"]
  const withEvents =
    (
      change: (
        events: Stream.Stream<Source.FeedEvent, Source.SourceError>
      ) => Stream.Stream<Source.FeedEvent, Source.SourceError>
    ): Break =>
    (source) => ({ ...source, events: (after) => change(source.events(after)) })
  const v = ControlVersion.make

  const broken: Record<string, readonly [law: string, fault: Break]> = {
    "loses an event": [
      "streams every event as it was appended, in the order of the versions",
      withEvents(Stream.filter(({ version }) => version !== 400))
    ],
    "swaps two events": [
      "streams every event as it was appended, in the order of the versions",
      withEvents(
        Stream.mapChunks((chunk) =>
          chunk.length < 2 ? chunk : Chunk.appendAll(Chunk.reverse(Chunk.take(chunk, 2)), Chunk.drop(chunk, 2))
        )
      )
    ],
    "gives an event twice": [
      "streams every event as it was appended, in the order of the versions",
      withEvents(Stream.flatMap((event) => (event.version === 7 ? Stream.make(event, event) : Stream.make(event))))
    ],
    rewrites: [
      "carries the exact text of an event, with at most the control version added",
      withEvents(Stream.map((event) => ({ ...event, text: JSON.stringify(JSON.parse(event.text)) })))
    ],
    "begins with the position": [
      "starts after any position",
      (source) => ({ ...source, events: (after) => source.events(Math.max(after - 1, 0)) })
    ],
    "ends where the feed does": [
      "waits in an empty feed",
      (source) => ({
        ...source,
        events: (after) =>
          Stream.unwrap(
            Effect.map(source.look, ({ newest }) => Stream.take(source.events(after), Math.max(newest - after, 0)))
          )
      })
    ],
    "gives an event to one reader alone": [
      "streams the same events again, to any number of readers, even after a restart",
      (source) => {
        const given = new Set<number>()
        return withEvents(Stream.filter(({ version }) => !given.has(version) && !!given.add(version)))(source)
      }
    ],
    "forgets what was acknowledged": [
      "streams the same events again after they were acknowledged",
      (source) => {
        const gone = new Set<number>()
        return {
          ...withEvents(Stream.filter(({ version }) => !gone.has(version)))(source),
          acknowledge: (version) => Effect.sync(() => void gone.add(version))
        }
      }
    ],
    "looks too late": [
      "says what the newest event is and the oldest, and which feed it is, the same after a restart",
      (source) => ({ ...source, look: Effect.map(source.look, (feed) => ({ ...feed, newest: 0 })) })
    ],
    "drops what a slow reader does not take": [
      "loses nothing while a reader is slow and a writer is not",
      withEvents((events) => Stream.buffer(events, { capacity: 16, strategy: "dropping" }))
    ],
    "waits beyond the end": [
      "fails if the feed ends before the position",
      (source) => ({ ...source, events: (after) => (after === 4 ? Stream.never : source.events(after)) })
    ],
    "is silent at a gap": [
      "fails if events after the position were removed",
      (source) => ({
        ...source,
        events: (after) => Stream.catchTag(source.events(after), "SourceError", () => source.events(v(4)))
      })
    ],
    "is silent where everything is gone": [
      "fails if every event after the position was removed",
      (source) => ({
        ...source,
        events: (after) => Stream.catchTag(source.events(after), "SourceError", () => source.events(v(4)))
      })
    ],
    "takes one feed for another": [
      "distinguishes a feed that replaced another",
      (source) => ({ ...source, look: Effect.map(source.look, (feed) => ({ ...feed, identity: "feed" })) })
    ],
    "is silent while it is cut off": [
      "fails while the feed is unreachable, and continues afterwards",
      withEvents((events) => Stream.catchAll(events, () => Stream.never))
    ]
  }
  for (const [fault, [name, breaking]] of Object.entries(broken)) {
    it.live(
      `is found out: ${fault}`,
      () =>
        Effect.gen(function* () {
          const law = sourceConformance.find((law) => law.name === name)
          const failure = yield* Effect.flip(law!.run({ ...memory(breaking), patience: "1 second" }))
          assert.strictEqual(failure.law, name)
          assert.match(failure.message, /^Expected /)
        }),
      300_000
    )
  }

  it.live("names the hooks that a law lacks", () =>
    Effect.gen(function* () {
      const { append, empty, layer } = memory()
      const harness = SourceConformance.harness({ append, empty, layer })
      const skipped = sourceConformance.filter((law) => missingHooks(law, harness).length > 0)
      assert.deepStrictEqual(
        skipped.map(({ needs }) => needs.join()),
        ["removeUpTo", "removeUpTo", "replace", "spoil", "sever"]
      )
      for (const law of skipped) {
        assert.match((yield* Effect.flip(law.run(harness))).message, /^The harness has no hook "/)
      }
    })
  )
})
