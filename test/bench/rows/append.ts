import { createBareTable, createOutbox, createStream, deleteStream, dropSchema, fill } from "../support/outbox.js"
import { prepare } from "../support/processes.js"
import { atLeast, interleaved, type Bench, type Line, type Row } from "../support/row.js"

const writers = 32

/** Transactions a second that insert one row each. */
const append = async (
  bench: Bench,
  options: { readonly via: "sql" | "effect"; readonly into: "outbox" | "bare"; readonly busy: boolean }
): Promise<number> => {
  const { databaseUrl, log, natsUrl, scale } = bench
  const [schema, stream] = [bench.fresh(), bench.fresh()]
  const { busy, into, via } = options
  await createOutbox(databaseUrl, schema)
  await createBareTable(databaseUrl, schema)
  await createStream(natsUrl, stream)
  const task = { databaseUrl, natsUrl, schema, stream }
  const transactions = 20_000 / scale
  const writing = await prepare("contestants/writers.ts", {
    ...task,
    options: { via, into, writers, transactions }
  })
  // For code to get warm.
  await writing.go()
  let pump: Awaited<ReturnType<typeof prepare>> | undefined
  if (busy) {
    // More than it can publish meanwhile: it is as busy whatever is appended.
    await fill(databaseUrl, schema, { events: 400_000 / scale, keys: 500 })
    pump = await prepare("contestants/running.ts", { ...task, options: { sink: "jetstream" } })
  }
  const { milliseconds } = await writing.go()
  await writing.end()
  await pump?.end()
  await deleteStream(natsUrl, stream)
  await dropSchema(databaseUrl, schema)
  const rate = transactions / (milliseconds / 1_000)
  log(`${via} into ${into}${busy ? ", pump busy" : ""}: ${Math.round(rate)} transactions/s`)
  return rate
}

const compare = async (
  bench: Bench,
  row: string,
  options: { readonly via: "sql" | "effect"; readonly busy: boolean }
) => {
  const { bare, outbox } = await interleaved(bench.rounds, {
    outbox: () => append(bench, { ...options, into: "outbox" }),
    bare: () => append(bench, { ...options, into: "bare" })
  })
  const line: Line = {
    row,
    unit: "transactions/s",
    ours: outbox,
    against: { what: "the same row without triggers", samples: bare },
    target: atLeast(outbox, bare, 0.9)
  }
  return line
}

export const appending: Row = {
  name: "append",
  run: async (bench) => [
    await compare(bench, `append by SQL, ${writers} writers, pump idle`, { via: "sql", busy: false }),
    await compare(bench, `append by SQL, ${writers} writers, pump busy`, { via: "sql", busy: true }),
    await compare(bench, `Outbox.append, ${writers} writers, pump idle`, { via: "effect", busy: false })
  ]
}
