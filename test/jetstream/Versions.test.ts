import { describe, it, layer } from "@effect/vitest"
import { Layer } from "effect"
import { SinkConformance } from "../../src/testing/index.js"
import * as Nats from "../support/nats.js"
import { Broker, makeBroker } from "./support/broker.js"
import { obeys } from "./support/laws.js"

// The suites beside this one run on the server of the PATH.
const others = Nats.programs.filter(({ command }) => command !== Nats.standard)

describe.skipIf(!Nats.availableFrom(Nats.leastForBatches))("JetStreamSink", () => {
  for (const { command, version } of others) {
    describe(`with nats-server ${version}`, () => {
      layer(Layer.scoped(Broker, makeBroker({ command })), { excludeTestServices: true, timeout: 300_000 })((it) => {
        for (const deduplication of ["lookup", "subject"] as const) {
          describe(`the laws of sinks, with deduplication by ${deduplication}`, () => {
            for (const law of SinkConformance.sinkConformance) {
              it.scoped(law.name, () => obeys(law, { deduplication }))
            }
          })
        }
      })
    })
  }
  if (others.length === 0) it.skip("with newer servers", () => {})
})
