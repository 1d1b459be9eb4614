/**
 * What it costs to keep the rows of an outbox, in schemas side by side:
 * `npm run bench:storage [-- --rounds N --events N --published N --only SCHEMA,… --parts interleavings,cycle,look,contract --json FILE]`.
 *
 * Starts an embedded PostgreSQL and runs claims and write-backs without a sink. docs/decisions/rows-written-once.md says
 * what the schemas are, and what was found.
 */
import { Effect, Exit, Redacted, Scope } from "effect"
import { rm, writeFile } from "node:fs/promises"
import { cpus } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import * as Pg from "pg"
import * as EmbeddedPostgres from "../../../src/cli/EmbeddedPostgres.js"
import { openDirectory } from "../../support/openDirectory.js"
import { median } from "../support/row.js"
import { postmasterOf } from "./cpu.js"
import { appends, reads, rotation } from "./contract.js"
import { cycle, one, type Cycle, type Server } from "./cycle.js"
import { interleavings } from "./interleavings.js"
import { conditions, type Found } from "./looks.js"
import { hot, unguarded } from "./schemas/hot.js"
import { insertions } from "./schemas/insertions.js"
import { folded, receiptsOnly } from "./schemas/receipts.js"
import { today } from "./schemas/today.js"
import type { Variant } from "./variant.js"

const variants: ReadonlyArray<Variant> = [today, hot, receiptsOnly, folded, insertions]

/** Run only where they are named. */
const asked: ReadonlyArray<Variant> = [unguarded]

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    events: { type: "string", default: "300000" },
    published: { type: "string", default: "3000000" },
    only: { type: "string" },
    parts: { type: "string", default: "interleavings,cycle,look,contract" },
    json: { type: "string" }
  }
})

const log = (line: string) => console.error(`  ${line}`)

const figure = (value: number): string =>
  value >= 100 ? Math.round(value).toLocaleString("en-US") : value.toPrecision(2).replace(/\.0$/, "")

const spread = (samples: ReadonlyArray<number | undefined>): string => {
  const found = samples.filter((sample) => sample !== undefined)
  if (found.length === 0) return ""
  return `${figure(median(found))} (${figure(Math.min(...found))}–${figure(Math.max(...found))})`
}

/** What the table of the cycles has, an event. */
const columns: Readonly<Record<string, (cycle: Cycle) => number | undefined>> = {
  "append µs": ({ append }) => append.cpu,
  "append WAL": ({ append }) => append.wal,
  "claim µs": ({ claim }) => claim.cpu,
  "events/s": ({ publish }) => publish.perSecond,
  "publish µs": ({ publish }) => publish.cpu,
  "publish WAL": ({ publish }) => publish.wal,
  "fold µs": ({ fold }) => fold?.cpu,
  "fold WAL": ({ fold }) => fold?.wal,
  dead: ({ dead }) => dead,
  HOT: ({ hot }) => hot,
  "vacuum µs": ({ vacuum }) => vacuum.cpu,
  "vacuum WAL": ({ vacuum }) => vacuum.wal,
  table: ({ table }) => table,
  index: ({ index }) => index,
  "remove µs": ({ remove }) => remove.cpu,
  "remove WAL": ({ remove }) => remove.wal,
  "publish, fold and vacuum µs": ({ fold, publish, vacuum }) => publish.cpu + (fold?.cpu ?? 0) + vacuum.cpu
}

const cycles = async (server: Server, chosen: ReadonlyArray<Variant>, rounds: number, events: number) => {
  const found = new Map<string, Array<Cycle>>(chosen.map(({ name }) => [name, []]))
  for (let round = 0; round < rounds; round++) {
    for (let turn = 0; turn < chosen.length; turn++) {
      const variant = chosen[(round + turn) % chosen.length]!
      const sample = await cycle(server, variant, events)
      found.get(variant.name)!.push(sample)
      log(
        `${variant.name}: ${Math.round(sample.publish.perSecond)} events/s, ${sample.publish.cpu.toFixed(1)} µs, ${Math.round(sample.publish.wal)} bytes of WAL`
      )
    }
  }
  console.table(
    Object.fromEntries(
      Object.entries(columns).map(([column, of]) => [
        column,
        Object.fromEntries(chosen.map(({ name }) => [name, spread(found.get(name)!.map(of))]))
      ])
    )
  )
  return Object.fromEntries(found)
}

const looks = async (server: Server, chosen: ReadonlyArray<Variant>, events: number, published: number) => {
  const found: Array<Found> = []
  // Condition by condition, so that what is compared is measured close together.
  const all = chosen
    .filter((variant) => variant.fold === undefined)
    .map((variant) => conditions(server, variant, events, published))
  for (let condition = 0; condition < all[0]!.length; condition++) {
    for (const ofVariant of all) {
      found.push(await ofVariant[condition]!())
      log(JSON.stringify(found.at(-1)))
    }
  }
  console.table(
    found.map(({ condition, cpu, fresh, learnt, perSecond, schema }) => ({
      condition,
      schema,
      "look, just started, ms": figure(fresh),
      "look ms": figure(learnt),
      "events/s": figure(perSecond),
      "publish µs": figure(cpu)
    }))
  )
  return found
}

const contract = async (
  server: Server,
  chosen: ReadonlyArray<Variant>,
  rounds: number,
  events: number,
  published: number
) => {
  const ways = [
    ["the table", today, false],
    ["a view that PostgreSQL updates", receiptsOnly, false],
    ["a view with INSTEAD OF", receiptsOnly, true]
  ] as const
  const appended: Array<Awaited<ReturnType<typeof appends>>> = []
  for (let round = 0; round < rounds; round++) {
    for (const [title, variant, instead] of ways)
      appended.push(await appends(server, title, variant, instead, events / 10))
  }
  const of = (title: string, column: "single" | "many" | "copy") =>
    appended.flatMap((found) => (found.through === title ? [found[column]] : []))
  console.table(
    ways.map(([title]) => {
      const copies = of(title, "copy")
      return {
        "append through": title,
        "single INSERT µs": spread(of(title, "single") as Array<number>),
        "of 5,000 µs": spread(of(title, "many") as Array<number>),
        "COPY µs": copies.every((copy) => typeof copy === "number") ? spread(copies) : copies[0],
        "ON CONFLICT": appended.find(({ through }) => through === title)!.conflict
      }
    })
  )
  const read: Array<Awaited<ReturnType<typeof reads>>> = []
  for (const variant of chosen.filter(({ fold }) => fold === undefined)) {
    read.push(await reads(server, variant, published))
    log(JSON.stringify(read.at(-1)))
  }
  const bySchema = <Value>(of: (one: (typeof read)[number]) => Readonly<Record<string, Value>>) =>
    Object.fromEntries(
      Object.keys(of(read[0]!)).map((what) => [
        what,
        Object.fromEntries(read.map((one) => [one.schema, of(one)[what]]))
      ])
    )
  console.table(bySchema(({ times }) => times))
  console.log(
    JSON.stringify(
      bySchema(({ answers }) => answers),
      null,
      2
    )
  )
  const rotated = await rotation(server, events / 3)
  console.log(JSON.stringify(rotated, null, 2))
  return { appended, read, rotated }
}

const run = async () => {
  const names = values.only?.split(",")
  const chosen = names === undefined ? variants : [...variants, ...asked].filter(({ name }) => names.includes(name))
  const parts = values.parts.split(",")
  const directory = await openDirectory("controlpublish-storage-")
  const scope = await Effect.runPromise(Scope.make())
  try {
    const { superuserUrl } = await Effect.runPromise(
      Scope.extend(EmbeddedPostgres.start({ directory: join(directory, "pg") }), scope)
    )
    const databaseUrl = Redacted.value(superuserUrl)
    const client = new Pg.Client({ connectionString: databaseUrl })
    await client.connect()
    // No checkpoint and no autovacuum in the middle of a phase.
    for (const setting of ["max_wal_size = '16GB'", "checkpoint_timeout = '1h'", "autovacuum = off"]) {
      await client.query(`ALTER SYSTEM SET ${setting}`)
    }
    await client.query("SELECT pg_reload_conf()")
    let schemas = 0
    const server: Server = {
      databaseUrl,
      postmaster: await postmasterOf(client),
      client,
      fresh: () => `storage_${++schemas}`
    }
    const rounds = Number(values.rounds)
    const events = Number(values.events)
    const result: Record<string, unknown> = {}
    if (parts.includes("interleavings")) {
      const answers: Record<string, Readonly<Record<string, string>>> = {}
      for (const variant of chosen) answers[variant.name] = await interleavings(server, variant)
      console.log(JSON.stringify(answers, null, 2))
      result.interleavings = answers
      if (Object.values(answers).some((of) => Object.values(of).some((answer) => answer !== "holds")))
        process.exitCode = 1
    }
    if (parts.includes("cycle")) result.cycle = await cycles(server, chosen, rounds, events)
    const published = Number(values.published)
    if (parts.includes("look")) result.look = await looks(server, chosen, events, published)
    if (parts.includes("contract")) result.contract = await contract(server, chosen, rounds, events, published)
    const { server_version } = await one<{ server_version: string }>(client, "SHOW server_version")
    const machine = `${cpus().length} × ${cpus()[0]!.model}, node ${process.version}, PostgreSQL ${server_version}; medians of ${rounds} rounds, least and most`
    console.log(machine)
    if (values.json !== undefined) await writeFile(values.json, JSON.stringify({ machine, ...result }, null, 2))
    await client.end()
  } finally {
    await Effect.runPromise(Scope.close(scope, Exit.void))
    await rm(directory, { recursive: true, force: true })
  }
}

run().catch((error: unknown) => {
  console.error(error)
  process.exitCode = 1
})
