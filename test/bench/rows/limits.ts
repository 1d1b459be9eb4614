import * as PgClient from "@effect/sql-pg/PgClient"
import { Effect, Layer, ManagedRuntime, Redacted } from "effect"
import { OutboxStore, type ControlVersion, type Lane } from "../../../src/index.js"
import { Postgres } from "../../../src/postgres/index.js"
import { createOutbox, createStream, deleteStream, dropSchema, fill, publishRest, stored } from "../support/outbox.js"
import { peakMemory, prepare } from "../support/processes.js"
import { atLeast, below, interleaved, median, type Bench, type Row } from "../support/row.js"
import { needsBatches, onOutbox } from "./throughput.js"

/** Events a second of one contestant on one key. */
const roundTrips = async (bench: Bench, events: number): Promise<number> => {
  const stream = bench.fresh()
  await createStream(bench.natsUrl, stream)
  const { end, go } = await prepare("contestants/roundTrip.ts", { ...bench, schema: "", stream, options: { events } })
  await go()
  const { milliseconds } = await go()
  await end()
  await deleteStream(bench.natsUrl, stream)
  const rate = events / (milliseconds / 1_000)
  bench.log(`round trips: ${Math.round(rate)}/s`)
  return rate
}

export const oneKey: Row = {
  name: "key",
  run: async (bench) => {
    const events = 10_000 / bench.scale
    const { bare, pump } = await interleaved(bench.rounds, {
      pump: () => onOutbox(bench, "contestants/pump.ts", { events, keys: 1, before: events }),
      bare: () => roundTrips(bench, events)
    })
    return [
      {
        row: "all events of one key",
        unit: "events/s",
        ours: pump,
        against: { what: "round trips one after another", samples: bare },
        target: atLeast(pump, bare, 0.85)
      }
    ]
  }
}

/** One key in atomic batches: no round trip an event. */
export const oneKeyByBatch: Row = {
  name: "key-batch",
  run: async (bench) => {
    const { withBatches } = bench
    if (withBatches === undefined) throw new Error(needsBatches)
    const events = 20_000 / bench.scale
    const { bare, pump } = await interleaved(bench.rounds, {
      pump: () => onOutbox(withBatches, "contestants/pump.ts", { events, keys: 1, before: events, publish: "batch" }),
      bare: () => roundTrips(withBatches, events / 4)
    })
    return [
      {
        row: "all events of one key, in atomic batches",
        unit: "events/s",
        ours: pump,
        against: { what: "round trips one after another", samples: bare },
        target: atLeast(pump, bare, 8)
      }
    ]
  }
}

const batch = 500

/** Claims and writes back a batch of each lane, and answers the median of what that took, in milliseconds. */
const claims = (store: OutboxStore.OutboxStore["Type"]) =>
  Effect.gen(function* () {
    const { lanes } = yield* store.probe({ afterParked: "pass", now: Date.now() })
    const found: Array<number> = []
    for (const lane of lanes.slice(0, 40)) {
      const from = performance.now()
      yield* claimOne(store, lane)
      found.push(performance.now() - from)
    }
    return median(found)
  })

const claimOne = (store: OutboxStore.OutboxStore["Type"], lane: Lane.Lane) =>
  Effect.gen(function* () {
    const now = Date.now()
    const claim = yield* store.claim({
      lanes: [lane],
      now,
      limit: batch,
      maxBytes: 4 * 1024 * 1024,
      holdFor: 10_000,
      afterParked: "pass"
    })
    if (claim._tag !== "Claim") return yield* Effect.dieMessage(claim._tag)
    yield* claim.settle({
      now,
      published: claim.rows.map(({ id }, index) => ({ id, version: (index + 1) as ControlVersion.ControlVersion })),
      failed: [],
      parked: []
    })
  }).pipe(Effect.scoped)

export const tableSize: Row = {
  name: "table",
  run: async (bench) => {
    const { databaseUrl, rounds, scale } = bench
    const sizes = [10_000, 300_000, 3_000_000].map((size) => size / scale)
    const outboxes = []
    for (const size of sizes) {
      const schema = bench.fresh()
      await createOutbox(databaseUrl, schema)
      await fill(databaseUrl, schema, { events: size, keys: 500, published: true })
      bench.log(`${size} published rows are there`)
      const runtime = ManagedRuntime.make(
        Postgres.layer({ schema }).pipe(Layer.provide(PgClient.layer({ url: Redacted.make(databaseUrl) })))
      )
      const store = await runtime.runPromise(OutboxStore.OutboxStore)
      let first = size + 1
      const measure = async () => {
        // A full batch for each lane.
        await fill(databaseUrl, schema, { events: 64 * 600, keys: 5_000, first })
        first += 64 * 600
        const found = await runtime.runPromise(claims(store))
        // What is left is taken away, so that each round begins alike.
        await publishRest(databaseUrl, schema)
        return found
      }
      await measure()
      outboxes.push({ schema, runtime, measure })
    }
    const [small, middle, large] = outboxes
    const found = await interleaved(rounds, {
      small: small!.measure,
      middle: middle!.measure,
      large: large!.measure
    })
    for (const { runtime, schema } of outboxes) {
      await runtime.dispose()
      await dropSchema(databaseUrl, schema)
    }
    const medians = Object.values(found).map(median)
    const ratio = Math.max(...medians) / Math.min(...medians)
    return sizes.map((size, index) => ({
      row: `claim and write-back of ${batch}, ${size} published`,
      unit: "ms",
      ours: Object.values(found)[index]!,
      ...(index === 2 ? { target: { text: `${ratio.toFixed(2)} × (≤ 1.3)`, met: ratio <= 1.3 } } : {})
    }))
  }
}

/** The most memory that a pump has had, in MB, that publishes a backlog. */
const backlog = async (bench: Bench, options: { readonly events: number; readonly note: number }): Promise<number> => {
  const { databaseUrl, natsUrl } = bench
  const [schema, stream] = [bench.fresh(), bench.fresh()]
  await createOutbox(databaseUrl, schema)
  await createStream(natsUrl, stream)
  await fill(databaseUrl, schema, { ...options, keys: 500 })
  const { child, end, go } = await prepare("contestants/pump.ts", {
    databaseUrl,
    natsUrl,
    schema,
    stream,
    options: { sink: "jetstream" }
  })
  const { milliseconds } = await go()
  const peak = await peakMemory(child.pid!)
  await end()
  const messages = await stored(natsUrl, stream)
  if (messages !== options.events) throw new Error(`${messages} messages for ${options.events} events`)
  await deleteStream(natsUrl, stream)
  await dropSchema(databaseUrl, schema)
  bench.log(`${options.events} of ${options.note} bytes: ${Math.round(milliseconds)} ms, ${Math.round(peak)} MB`)
  return peak
}

export const memory: Row = {
  name: "memory",
  run: async (bench) => {
    const [one, other] = [1_000_000 / bench.scale, 2_000 / bench.scale]
    const many = [await backlog(bench, { events: one, note: 900 })]
    const large = [await backlog(bench, { events: other, note: 900 * 1024 })]
    return [
      {
        row: `peak memory, a backlog of ${one} × 1 KiB, one round`,
        unit: "MB",
        ours: many,
        target: below(many, 200, "MB")
      },
      {
        row: `peak memory, a backlog of ${other} × 900 KiB, one round`,
        unit: "MB",
        ours: large,
        target: below(large, 300, "MB")
      }
    ]
  }
}
