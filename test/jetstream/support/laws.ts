import { Effect, Layer, type Scope } from "effect"
import { JetStreamSink } from "../../../src/jetstream/index.js"
import { SinkConformance } from "../../../src/testing/index.js"
import { Broker, entries, freshName, silent } from "./broker.js"

/** Checks a law of sinks on a stream of its own. */
export const obeys = (
  law: SinkConformance.Law,
  options: Partial<JetStreamSink.Options>
): Effect.Effect<void, SinkConformance.ConformanceFailure, Broker | Scope.Scope> =>
  Effect.gen(function* () {
    const { manager, nc, server } = yield* Broker
    /** Takes one event's subject out of the stream, until the scope closes. */
    const without = (stream: string, id: string) => {
      const subjects = ["a", "b"].flatMap((key) => [1, 2, 3, 4].map((n) => `${stream}.${key}${n}`))
      const rest = subjects.filter((subject) => subject !== `${stream}.${id}`)
      return Effect.acquireRelease(
        Effect.promise(() => manager.streams.update(stream, { subjects: rest })),
        () => Effect.promise(() => manager.streams.update(stream, { subjects: [`${stream}.>`] }))
      )
    }
    /** Somebody else answers for the stream, with an error that nobody knows. */
    const otherwise = (stream: string, id: string) =>
      Effect.acquireRelease(
        Effect.promise(async () => {
          const subscription = nc.subscribe(`${stream}.${id}`, {
            callback: (_, message) => {
              message.respond(JSON.stringify({ error: { code: 400, err_code: 1, description: "told so" } }))
            }
          })
          await nc.flush()
          return subscription
        }),
        (subscription) => Effect.sync(() => subscription.unsubscribe())
      )
    yield* law.run(
      SinkConformance.harness<string>({
        empty: freshName,
        layer: (stream) =>
          JetStreamSink.layer({
            servers: [server.url],
            stream,
            subject: `${stream}.{event_id}`,
            manageStream: true,
            ...options
          }).pipe(Layer.provide(silent)),
        entries: (stream) => entries(manager, stream),
        rejecting: without,
        failing: (stream, id) => Effect.asVoid(Effect.zipRight(without(stream, id), otherwise(stream, id)))
      })
    )
  }).pipe(Effect.provide(silent))
