import { createOutbox, createStream, deleteStream, dropSchema, fill, verify, withClient } from "../support/outbox.js"
import { cpuOf, prepare } from "../support/processes.js"
import { atLeast, interleaved, type Bench, type Line, type Row } from "../support/row.js"

export const keys = 500

// Pumps run for weeks: what is measured is not how code gets warm.
const warmUp = 200_000

/** Events a second of a contestant on a fresh outbox and a fresh stream, both looked at afterwards. */
export const onOutbox = async (
  bench: Bench,
  entry: string,
  options: {
    readonly events: number
    readonly keys: number
    /** To a sink that only counts. */
    readonly toMemory?: boolean
    /** Each event to a subject of its own. */
    readonly toSubjects?: boolean
    /** How they are published. Default: message by message. */
    readonly publish?: "message" | "batch" | "auto"
    /** Events that are published first. */
    readonly before?: number
    /** Whether a transaction elsewhere keeps a snapshot that is older than everything published. */
    readonly pinned?: boolean
  }
): Promise<number> => {
  const { databaseUrl, log, natsUrl, scale } = bench
  const [schema, stream] = [bench.fresh(), bench.fresh()]
  const {
    before = warmUp / scale,
    events,
    keys,
    pinned = false,
    publish = "message",
    toMemory = false,
    toSubjects = false
  } = options
  await createOutbox(databaseUrl, schema)
  await createStream(natsUrl, stream)
  const sink = toMemory ? "memory" : "jetstream"
  const deduplication = toSubjects ? "subject" : "lookup"
  const { end, go } = await prepare(entry, {
    databaseUrl,
    natsUrl,
    schema,
    stream,
    options: { sink, deduplication, publish }
  })
  await fill(databaseUrl, schema, { events: before, keys })
  const { cpu, milliseconds, server } = await withClient(databaseUrl, async (reader) => {
    if (pinned) await reader.query("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM pg_class LIMIT 1")
    await go()
    await fill(databaseUrl, schema, { events, keys, first: before + 1 })
    const from = await cpuOf(bench.natsPid)
    const result = await go()
    return { ...result, server: (await cpuOf(bench.natsPid)) - from }
  })
  await end()
  if (!toMemory) await verify({ databaseUrl, natsUrl, stream, events: before + events, schema })
  await deleteStream(natsUrl, stream)
  await dropSchema(databaseUrl, schema)
  const rate = events / (milliseconds / 1_000)
  const each = (millis: number) => ((millis * 1_000) / events).toFixed(1)
  const how = publish === "message" ? "" : ` by ${publish}`
  log(`${entry}${how}: ${Math.round(rate)} events/s, ${each(cpu)} µs of CPU an event, nats-server ${each(server)}`)
  return rate
}

export const throughput: Row = {
  name: "throughput",
  run: async (bench) => {
    const events = 100_000 / bench.scale
    const { handwritten, pump } = await interleaved(bench.rounds, {
      pump: () => onOutbox(bench, "contestants/pump.ts", { events, keys }),
      handwritten: () => onOutbox(bench, "contestants/handwritten.ts", { events, keys })
    })
    return [
      {
        row: `outbox → JetStream, ${events} events of ${keys} keys`,
        unit: "events/s",
        ours: pump,
        against: { what: "the loop by hand", samples: handwritten },
        target: atLeast(pump, handwritten, 0.9)
      }
    ]
  }
}

export const needsBatches = "There is no nats-server 2.12.1 or newer: .ci/nats-servers DIRECTORY fetches one"

/** Atomic batches: against messages, by the pump and by hand, on one key, on few and on many. */
export const batches: Row = {
  name: "batch",
  run: async (bench) => {
    const { withBatches } = bench
    if (withBatches === undefined) throw new Error(needsBatches)
    const lines: Array<Line> = []
    for (const [count, events, before] of [
      [1, 20_000, 20_000],
      [64, 50_000, 50_000],
      [500, 100_000, 100_000],
      [20_000, 100_000, 100_000]
    ] as const) {
      const size = {
        events: events / bench.scale,
        keys: Math.min(count, events / bench.scale),
        before: before / bench.scale
      }
      const found = await interleaved(bench.rounds, {
        batch: () => onOutbox(withBatches, "contestants/pump.ts", { ...size, publish: "batch" }),
        message: () => onOutbox(withBatches, "contestants/pump.ts", size),
        byHand: () => onOutbox(withBatches, "contestants/handwritten.ts", { ...size, publish: "batch" })
      })
      const what = `in atomic batches, ${size.events} events of ${size.keys} keys`
      lines.push(
        {
          row: what,
          unit: "events/s",
          ours: found.batch,
          against: { what: "the loop by hand, in batches", samples: found.byHand },
          target: atLeast(found.batch, found.byHand, 0.9)
        },
        { row: what, unit: "events/s", ours: found.batch, against: { what: "by message", samples: found.message } }
      )
    }
    return lines
  }
}

export const deduplication: Row = {
  name: "deduplication",
  run: async (bench) => {
    const events = 100_000 / bench.scale
    const { lookup, subject } = await interleaved(bench.rounds, {
      lookup: () => onOutbox(bench, "contestants/pump.ts", { events, keys }),
      subject: () => onOutbox(bench, "contestants/pump.ts", { events, keys, toSubjects: true })
    })
    return [
      {
        row: "each event to a subject of its own (NATS_DEDUPLICATION=subject)",
        unit: "events/s",
        ours: subject,
        against: { what: "lookup", samples: lookup }
      }
    ]
  }
}

export const core: Row = {
  name: "core",
  run: async (bench) => {
    const events = 100_000 / bench.scale
    const { pump } = await interleaved(bench.rounds, {
      pump: () => onOutbox(bench, "contestants/pump.ts", { events, keys, toMemory: true })
    })
    return [{ row: "outbox → a sink that only counts", unit: "events/s", ours: pump }]
  }
}

export const oldSnapshot: Row = {
  name: "snapshot",
  run: async (bench) => {
    const events = 100_000 / bench.scale
    const before = 300_000 / bench.scale
    const { free, pinned } = await interleaved(bench.rounds, {
      pinned: () => onOutbox(bench, "contestants/pump.ts", { events, keys, before, pinned: true }),
      free: () => onOutbox(bench, "contestants/pump.ts", { events, keys, before })
    })
    return [
      {
        row: `with an old snapshot held elsewhere, after ${before} published`,
        unit: "events/s",
        ours: pinned,
        against: { what: "without", samples: free },
        target: atLeast(pinned, free, 0.8)
      }
    ]
  }
}
