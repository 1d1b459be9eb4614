import { Effect, Exit, Scope } from "effect"
import { postgresMeter } from "../../support/meter.js"
import { createOutbox, createStream, deleteStream, dropSchema, fill } from "../support/outbox.js"
import { prepare } from "../support/processes.js"
import { atLeast, below, interleaved, quantile, type Bench, type Row } from "../support/row.js"

/** An outbox and a stream for as long as they are used. */
const withOutbox = async <A>(
  bench: Bench,
  use: (task: { databaseUrl: string; natsUrl: string; schema: string; stream: string }) => Promise<A>
): Promise<A> => {
  const { databaseUrl, natsUrl } = bench
  const [schema, stream] = [bench.fresh(), bench.fresh()]
  await createOutbox(databaseUrl, schema)
  await createStream(natsUrl, stream)
  const result = await use({ databaseUrl, natsUrl, schema, stream })
  await deleteStream(natsUrl, stream)
  await dropSchema(databaseUrl, schema)
  return result
}

const rate = 500

/** Milliseconds from the commit of each event until its pump knew its outcome. */
const latencies = (bench: Bench) =>
  withOutbox(bench, async (task) => {
    const pump = await prepare("contestants/running.ts", { ...task, options: { sink: "jetstream", observe: 1 } })
    const arrivals = await prepare("contestants/arrivals.ts", { ...task, options: { rate, keys: 100 } })
    await arrivals.go(2_000)
    const { figures: committed } = await arrivals.go(20_000 / Math.min(bench.scale, 10))
    await arrivals.end()
    const { figures: acknowledged } = await pump.go(0)
    await pump.end()
    return Object.entries(committed).map(([id, at]) => {
      const then = acknowledged[id]
      if (then === undefined) throw new Error(`${id} was not published`)
      // What is acknowledged before the commit is known to its writer took no time for it.
      return Math.max(then - at, 0)
    })
  })

export const latency: Row = {
  name: "latency",
  run: async (bench) => {
    const rounds: Array<ReadonlyArray<number>> = []
    for (let round = 0; round < bench.rounds; round++) {
      const found = await latencies(bench)
      bench.log(`p50 ${quantile(found, 0.5).toFixed(2)} ms, p99 ${quantile(found, 0.99).toFixed(2)} ms`)
      rounds.push(found)
    }
    return [
      [0.5, 5],
      [0.99, 25]
    ].map(([share, limit]) => {
      const ours = rounds.map((found) => quantile(found, share!))
      return {
        row: `commit → acknowledged at ${rate} events/s, p${share! * 100}`,
        unit: "ms",
        ours,
        target: below(ours, limit!, "ms")
      }
    })
  }
}

export const idle: Row = {
  name: "idle",
  run: (bench) =>
    withOutbox(bench, async (task) => {
      const scope = await Effect.runPromise(Scope.make())
      const meter = await Effect.runPromise(Scope.extend(postgresMeter(new URL(task.databaseUrl)), scope))
      const pump = await prepare("contestants/running.ts", {
        ...task,
        databaseUrl: meter.url.href,
        options: { sink: "jetstream" }
      })
      const cores: Array<number> = []
      const statements: Array<number> = []
      await pump.go(3_000)
      for (let round = 0; round < bench.rounds; round++) {
        await Effect.runPromise(meter.take)
        const { cpu, milliseconds } = await pump.go(20_000 / Math.min(bench.scale, 10))
        cores.push((100 * cpu) / milliseconds)
        statements.push((await Effect.runPromise(meter.take)).statements / (milliseconds / 1_000))
      }
      await pump.end()
      await Effect.runPromise(Scope.close(scope, Exit.void))
      return [
        { row: "idle pump", unit: "% of a core", ours: cores, target: below(cores, 1, "%") },
        { row: "idle pump", unit: "statements/s", ours: statements, target: below(statements, 2, "/s") }
      ]
    })
}

/** Events a second of several pumps whose sink takes 5 ms an event. */
const slowly = (bench: Bench, pumps: number) =>
  withOutbox(bench, async (task) => {
    const events = 8_000 / Math.min(bench.scale, 4)
    const ready = await Promise.all(
      Array.from({ length: pumps }, () =>
        prepare("contestants/running.ts", { ...task, options: { sink: "slow", paused: 1 } })
      )
    )
    await fill(task.databaseUrl, task.schema, { events, keys: 500 })
    const results = await Promise.all(ready.map(({ go }) => go(0)))
    await Promise.all(ready.map(({ end }) => end()))
    const found = events / (Math.max(...results.map(({ milliseconds }) => milliseconds)) / 1_000)
    bench.log(`${pumps} pumps: ${Math.round(found)} events/s`)
    return found
  })

export const slowSink: Row = {
  name: "pumps",
  run: async (bench) => {
    const { four, one, two } = await interleaved(bench.rounds, {
      one: () => slowly(bench, 1),
      two: () => slowly(bench, 2),
      four: () => slowly(bench, 4)
    })
    const against = { what: "one", samples: one }
    const unit = "events/s"
    return [
      { row: "a sink of 5 ms an event, 2 pumps", unit, ours: two, against, target: atLeast(two, one, 1.8) },
      { row: "a sink of 5 ms an event, 4 pumps", unit, ours: four, against, target: atLeast(four, one, 3.2) }
    ]
  }
}
