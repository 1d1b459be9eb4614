/** A broker of the test's own, and what suites of the sink publish to it. */
import { jetstreamManager, type JetStreamManager, type JetStreamManagerOptions } from "@nats-io/jetstream"
import { connect, type NatsConnection } from "@nats-io/transport-node"
import { type Array as Arr, Clock, Context, Effect, Layer, Logger, LogLevel } from "effect"
import { randomBytes } from "node:crypto"
import { EventId, OrderingKey, type Sink } from "../../../src/index.js"
import type { SinkConformance } from "../../../src/testing/index.js"
import * as Nats from "../../support/nats.js"

/** A server, and a connection of the test's own to it. */
export class Broker extends Context.Tag("test/Broker")<
  Broker,
  { readonly server: Nats.NatsServer; readonly nc: NatsConnection; readonly manager: JetStreamManager }
>() {}

/** A connection to any of the servers, which is made again whenever it breaks. */
export const connected = (servers: ReadonlyArray<Nats.NatsServer>, options: JetStreamManagerOptions = {}) =>
  Effect.gen(function* () {
    const urls = servers.map(({ url }) => url)
    const nc = yield* Effect.acquireRelease(
      Effect.promise(() => connect({ servers: urls, maxReconnectAttempts: -1, reconnectTimeWait: 20 })),
      (nc) => Effect.promise(() => nc.close())
    )
    return { nc, manager: yield* Effect.promise(() => jetstreamManager(nc, { checkAPI: false, ...options })) }
  })

export const makeBroker = (options?: Parameters<typeof Nats.nats>[0]) =>
  Effect.gen(function* () {
    const server = yield* Nats.nats(options)
    return { server, ...(yield* connected([server])) }
  })

/** What a stream holds. */
export const entries = (manager: JetStreamManager, stream: string) =>
  Effect.promise(async () => {
    const { state } = await manager.streams.info(stream)
    const result: Array<SinkConformance.Entry> = []
    for (let seq = Math.max(state.first_seq, 1); seq <= state.last_seq; seq++) {
      const message = await manager.streams.getMessage(stream, { seq })
      const payload = message!.string()
      result.push({ version: seq, payload, eventId: (JSON.parse(payload) as { event_id: string }).event_id })
    }
    return result
  })

export const layerBroker = Layer.scoped(Broker, makeBroker())

export const freshName = Effect.sync(() => `s${randomBytes(6).toString("hex")}`)

export const silent = Logger.minimumLogLevel(LogLevel.None)

export const event = (
  id: string,
  options: {
    key?: string
    type?: string
    text?: string
    createdAt?: number
    tenant?: string
    traceparent?: string
  } = {}
): Sink.OutboundEvent => {
  const eventId = EventId.make(id)
  const type = options.type ?? "test"
  return {
    eventId,
    orderingKey: OrderingKey.make(options.key ?? id),
    event: { event_id: eventId, type, ...(options.tenant === undefined ? {} : { tenant_id: options.tenant }) },
    payload: JSON.stringify({ event_id: id, type, text: options.text ?? "" }),
    traceparent: options.traceparent,
    createdAt: options.createdAt ?? Date.now(),
    attemptCount: 0
  }
}

export const publish = (
  sink: Sink.Sink["Type"],
  events: Arr.NonEmptyReadonlyArray<Sink.OutboundEvent>,
  millis = 5_000
) =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => sink.publish({ events, deadline: now + millis })).pipe(
    Effect.provide(silent)
  )
