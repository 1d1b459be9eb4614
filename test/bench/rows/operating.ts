import * as PgClient from "@effect/sql-pg/PgClient"
import { Layer, ManagedRuntime, Redacted } from "effect"
import { OutboxAdmin } from "../../../src/index.js"
import { PostgresOutboxAdmin } from "../../../src/postgres/index.js"
import {
  createOutbox,
  createStream,
  deleteStream,
  dropSchema,
  fill,
  Names,
  stored,
  withClient
} from "../support/outbox.js"
import { prepare } from "../support/processes.js"
import { atLeast, interleaved, median, type Row } from "../support/row.js"
import { keys } from "./throughput.js"

export const status: Row = {
  name: "status",
  run: async (bench) => {
    const { databaseUrl, rounds, scale } = bench
    const sizes = [3_000, 3_000_000 / scale]
    const outboxes = []
    for (const size of sizes) {
      const schema = bench.fresh()
      await createOutbox(databaseUrl, schema)
      await fill(databaseUrl, schema, { events: size, keys, published: true })
      await fill(databaseUrl, schema, { events: 5_000, keys, first: size + 1 })
      bench.log(`${size} published rows are there, and 5000 pending ones`)
      const runtime = ManagedRuntime.make(
        PostgresOutboxAdmin.layer({ schema }).pipe(Layer.provide(PgClient.layer({ url: Redacted.make(databaseUrl) })))
      )
      const admin = await runtime.runPromise(OutboxAdmin.OutboxAdmin)
      const once = async () => {
        const from = performance.now()
        await runtime.runPromise(admin.overview({ limit: 10_000 }))
        return performance.now() - from
      }
      const measure = async () => {
        const found: Array<number> = []
        for (let look = 0; look < 100; look++) found.push(await once())
        return median(found)
      }
      await measure()
      outboxes.push({ schema, runtime, measure })
    }
    const [small, large] = outboxes
    const found = await interleaved(rounds, { small: small!.measure, large: large!.measure })
    for (const { runtime, schema } of outboxes) {
      await runtime.dispose()
      await dropSchema(databaseUrl, schema)
    }
    const ratio = median(found.large) / median(found.small)
    return [
      {
        row: `an overview of the outbox, ${sizes[1]} published`,
        unit: "ms",
        ours: found.large,
        against: { what: `with ${sizes[0]}`, samples: found.small },
        target: { text: `${ratio.toFixed(2)} × (≤ 1.3)`, met: ratio <= 1.3 }
      }
    ]
  }
}

export const pruning: Row = {
  name: "prune",
  run: async (bench) => {
    const { databaseUrl, natsUrl, rounds, scale } = bench
    const [old, events] = [3_000_000 / scale, 200_000 / scale]
    const [schema, stream] = [bench.fresh(), bench.fresh()]
    await createOutbox(databaseUrl, schema)
    await createStream(natsUrl, stream)
    await fill(databaseUrl, schema, { events: old, keys, published: true })
    bench.log(`${old} published rows are there`)
    const task = { databaseUrl, natsUrl, schema, stream }
    const idle = await prepare("contestants/pump.ts", { ...task, options: { sink: "jetstream" } })
    const busy = await prepare("contestants/pump.ts", { ...task, options: { sink: "jetstream", prune: 1 } })
    let last = old
    const left = () =>
      withClient(databaseUrl, async (client) => {
        const { rows } = await client.query<{ left: number }>(
          `SELECT count(*)::int AS left FROM ${Names.make(schema).outbox} WHERE id <= ${old}`
        )
        return rows[0]!.left
      })
    let before = old
    const measure = async ({ go }: typeof idle, name: string) => {
      await fill(databaseUrl, schema, { events, keys, first: last + 1 })
      last += events
      const { milliseconds } = await go()
      const rate = events / (milliseconds / 1_000)
      const after = await left()
      bench.log(`${name}: ${Math.round(rate)} events/s, ${before - after} rows removed meanwhile, ${after} left`)
      // There has to be something to remove until the end.
      if (name === "pruning" && (before === after || after === 0)) throw new Error("It was not pruned all the while")
      before = after
      return rate
    }
    // What is measured is not how code gets warm.
    await measure(idle, "warm-up")
    await measure(busy, "warm-up")
    const found = await interleaved(rounds, {
      pruning: () => measure(busy, "pruning"),
      alone: () => measure(idle, "alone")
    })
    await Promise.all([idle.end(), busy.end()])
    const messages = await stored(natsUrl, stream)
    if (messages !== last - old) throw new Error(`${messages} messages for ${last - old} events`)
    await deleteStream(natsUrl, stream)
    await dropSchema(databaseUrl, schema)
    return [
      {
        row: `outbox → JetStream while ${old} old rows are pruned`,
        unit: "events/s",
        ours: found.pruning,
        against: { what: "without", samples: found.alone },
        target: atLeast(found.pruning, found.alone, 0.8)
      }
    ]
  }
}
