import { connect } from "@nats-io/transport-node"
import { createNode } from "../support/node.js"
import {
  createOutbox,
  createStream,
  deleteStream,
  dropSchema,
  Names,
  payloadOf,
  withClient
} from "../support/outbox.js"
import { prepare } from "../support/processes.js"
import { atLeast, below, interleaved, quantile, type Bench, type Row } from "../support/row.js"

const publish = async (natsUrl: string, stream: string, events: number): Promise<void> => {
  const nc = await connect({ servers: natsUrl })
  for (let n = 1; n <= events; n++) {
    nc.publish(`${stream}.tenant.created`, payloadOf(n).replace('"t0"', `"t${n % 500}"`))
    if (n % 1_000 === 0) await nc.flush()
  }
  await nc.flush()
  await nc.close()
}

/** Events a second that a node applies from a stream that holds them. */
const onNode = async (bench: Bench, entry: string, events: number, batch = 0): Promise<number> => {
  const { databaseUrl, log, natsUrl } = bench
  const [schema, stream] = [bench.fresh(), bench.fresh()]
  await createNode(databaseUrl, schema)
  await createStream(natsUrl, stream)
  await publish(natsUrl, stream, events)
  const { end, go } = await prepare(entry, { databaseUrl, natsUrl, schema, stream, options: { batch } })
  const { cpu, milliseconds } = await go()
  await end()
  const changes = await withClient(databaseUrl, async (client) => {
    const { rows } = await client.query<{ changes: number }>(
      `SELECT sum(changes)::int AS changes FROM ${Names.quote(schema)}.tenants`
    )
    return rows[0]!.changes
  })
  if (changes !== events) throw new Error(`${entry}: ${changes} changes for ${events} events`)
  await deleteStream(natsUrl, stream)
  await dropSchema(databaseUrl, schema)
  const rate = events / (milliseconds / 1_000)
  log(
    `${entry}${batch === 1 ? ", batches" : ""}: ${Math.round(rate)} events/s, ${((cpu * 1_000) / events).toFixed(1)} µs of CPU an event`
  )
  return rate
}

export const applying: Row = {
  name: "apply",
  run: async (bench) => {
    const events = 100_000 / bench.scale
    const { applier, batches, byHand } = await interleaved(bench.rounds, {
      applier: () => onNode(bench, "contestants/applier.ts", events),
      batches: () => onNode(bench, "contestants/applier.ts", events, 1),
      // Slower, and no other at more.
      byHand: () => onNode(bench, "contestants/applyByHand.ts", events / 5)
    })
    return [
      {
        row: `JetStream → a node's database, ${events} events`,
        unit: "events/s",
        ours: applier,
        against: { what: "the transaction by hand", samples: byHand },
        target: atLeast(applier, byHand, 0.85)
      },
      {
        row: `the same with handlers that take batches`,
        unit: "events/s",
        ours: batches,
        against: { what: "a handler an event", samples: applier }
      }
    ]
  }
}

const rate = 200

/** Milliseconds from the commit of each event until a node had applied it. */
const latencies = async (bench: Bench) => {
  const { databaseUrl, natsUrl } = bench
  const [schema, node, stream] = [bench.fresh(), bench.fresh(), bench.fresh()]
  await createOutbox(databaseUrl, schema)
  await createNode(databaseUrl, node)
  await createStream(natsUrl, stream)
  const task = { databaseUrl, natsUrl, schema, stream }
  const pump = await prepare("contestants/running.ts", { ...task, options: { sink: "jetstream" } })
  const applier = await prepare("contestants/applier.ts", { ...task, schema: node, options: { live: 1 } })
  const arrivals = await prepare("contestants/arrivals.ts", { ...task, options: { rate, keys: 100 } })
  await arrivals.go(2_000)
  const { figures: committed } = await arrivals.go(20_000 / Math.min(bench.scale, 10))
  await arrivals.end()
  await pump.go(0)
  await pump.end()
  const versions = await withClient(databaseUrl, async (client) => {
    const { rows } = await client.query<{ id: string; version: string }>(
      `SELECT event_id AS id, published_control_version AS version FROM ${Names.make(schema).outbox}`
    )
    return new Map(rows.map(({ id, version }) => [id, version]))
  })
  const { figures: applied } = await applier.go(versions.size)
  await applier.end()
  await deleteStream(natsUrl, stream)
  await dropSchema(databaseUrl, schema)
  await dropSchema(databaseUrl, node)
  return Object.entries(committed).map(([id, at]) => {
    const then = applied[versions.get(id)!]
    if (then === undefined) throw new Error(`${id} was not applied`)
    return Math.max(then - at, 0)
  })
}

export const applied: Row = {
  name: "applied",
  run: async (bench) => {
    const rounds: Array<ReadonlyArray<number>> = []
    for (let round = 0; round < bench.rounds; round++) {
      const found = await latencies(bench)
      bench.log(`p50 ${quantile(found, 0.5).toFixed(2)} ms, p99 ${quantile(found, 0.99).toFixed(2)} ms`)
      rounds.push(found)
    }
    const median = rounds.map((found) => quantile(found, 0.5))
    const tail = rounds.map((found) => quantile(found, 0.99))
    return [
      { row: `commit → applied on a node at ${rate} events/s, p50`, unit: "ms", ours: median },
      {
        row: `commit → applied on a node at ${rate} events/s, p99`,
        unit: "ms",
        ours: tail,
        target: below(tail, 50, "ms")
      }
    ]
  }
}
