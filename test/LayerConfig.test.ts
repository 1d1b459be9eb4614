import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Effect, Layer, Redacted } from "effect"
import * as Core from "../src/index.js"
import * as File from "../src/file/index.js"
import * as Fleet from "../src/fleet/index.js"
import * as JetStream from "../src/jetstream/index.js"
import * as Postgres from "../src/postgres/index.js"

const { PumpConfig } = Core

const env = (entries: Record<string, string>) =>
  Layer.setConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(entries))))

describe("layerConfig", () => {
  it("is beside every layer of outbox, feed and node that has options", () => {
    const missing = Object.values({ ...Core, ...File, ...Fleet, ...JetStream, ...Postgres }).flatMap((module) =>
      "layer" in module && typeof module.layer === "function" && !("layerConfig" in module) ? [module] : []
    )
    assert.deepStrictEqual(missing, [])
  })

  const layer = PumpConfig.layerConfig({
    batchSize: Config.integer("BATCH_SIZE"),
    drainTimeout: Config.duration("DRAIN").pipe(Config.withDefault("20 seconds"))
  })

  it.effect("reads its options from the ConfigProvider, and the rest are the defaults", () =>
    Effect.gen(function* () {
      const config = yield* PumpConfig.PumpConfig
      assert.deepStrictEqual({ ...config }, { ...PumpConfig.defaults, batchSize: 7, drainTimeout: "20 seconds" })
    }).pipe(Effect.provide(layer.pipe(Layer.provide(env({ BATCH_SIZE: "7" })))))
  )

  it.effect("fails with a ConfigError if one is missing or out of range", () =>
    Effect.gen(function* () {
      for (const [entries, message] of [
        [{}, /Expected BATCH_SIZE to exist/],
        [{ BATCH_SIZE: "many" }, /integer value/],
        [{ BATCH_SIZE: "0" }, /valid is an integer from 1/]
      ] as const) {
        const error = yield* Effect.scoped(Layer.build(layer.pipe(Layer.provide(env(entries))))).pipe(Effect.flip)
        assert.match(JSON.stringify(error), message)
      }
    })
  )

  it("takes the options of each layer", () => {
    const layers = [
      Postgres.Postgres.layerConfig({
        schema: Config.string("SCHEMA"),
        directUrl: Config.redacted("DIRECT_URL").pipe(Config.withDefault(Redacted.make("postgres://")))
      }),
      File.FileSink.layerConfig({ directory: Config.string("FEED") }),
      JetStream.JetStreamSink.layerConfig({
        servers: Config.array(Config.string(), "NATS"),
        stream: Config.string("STREAM")
      }),
      Fleet.Applier.layerConfig(Fleet.Handlers.make([], {}, { otherwise: "skip" }), {
        batchSize: Config.integer("BATCH")
      })
    ]
    assert.isTrue(layers.every((layer) => Layer.isLayer(layer)))
  })
})
