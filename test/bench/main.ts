/**
 * How fast the outbox is: `npm run bench [-- --rounds N --only ROW,… --json FILE --quick]`.
 *
 * Starts an embedded PostgreSQL (or takes BENCH_DATABASE_URL) and a nats-server, runs every contestant of a row in turn, and
 * prints one table. A target that is missed is said there; a row that fails makes the exit code 1.
 */
import { Effect, Exit, Redacted, Scope } from "effect"
import { execFileSync } from "node:child_process"
import { rm, writeFile } from "node:fs/promises"
import { cpus } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import * as EmbeddedPostgres from "../../src/cli/EmbeddedPostgres.js"
import { howToInstall, isInstalled, leastForBatches, programOf, standard, startNats } from "../support/nats.js"
import { withClient } from "./support/outbox.js"
import { killAll } from "./support/processes.js"
import { median, type Bench, type Line } from "./support/row.js"
import { rows } from "./rows/index.js"
import { openDirectory } from "../support/openDirectory.js"

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    only: { type: "string" },
    json: { type: "string" },
    quick: { type: "boolean", default: false }
  }
})

const figure = (value: number): string =>
  value >= 100 ? Math.round(value).toLocaleString("en-US") : value.toPrecision(2).replace(/\.0$/, "")

const spread = (samples: ReadonlyArray<number>): string =>
  samples.length === 1
    ? figure(samples[0]!)
    : `${figure(median(samples))} (${figure(Math.min(...samples))}–${figure(Math.max(...samples))})`

const cells = (line: Line) => ({
  row: line.row,
  unit: line.unit,
  ours: spread(line.ours),
  against: line.against === undefined ? "" : `${spread(line.against.samples)} ${line.against.what}`,
  target: line.target?.text ?? "",
  "": line.target === undefined ? "" : line.target.met ? "met" : "MISSED"
})

const run = async () => {
  if (!isInstalled) throw new Error(howToInstall)
  const chosen = values.only?.split(",")
  const unknown = chosen?.filter((name) => !rows.some((row) => row.name === name)) ?? []
  if (unknown.length > 0) {
    throw new Error(`--only: no row ${unknown.join(", ")}; there are ${rows.map((row) => row.name).join(", ")}`)
  }
  const directory = await openDirectory("controlpublish-bench-")
  const scope = await Effect.runPromise(Scope.make())
  const nats = await startNats()
  const newer = programOf(leastForBatches)
  const newerNats = newer === undefined ? undefined : await startNats({ command: newer.command })
  try {
    const databaseUrl =
      process.env.BENCH_DATABASE_URL ??
      Redacted.value(
        (await Effect.runPromise(Scope.extend(EmbeddedPostgres.start({ directory: join(directory, "pg") }), scope)))
          .superuserUrl
      )
    let names = 0
    const common = {
      databaseUrl,
      rounds: Number(values.rounds),
      scale: values.quick ? 20 : 1,
      fresh: () => `bench_${process.pid}_${++names}`,
      log: (line: string) => console.error(`  ${line}`)
    }
    const withBatches =
      newerNats === undefined
        ? undefined
        : { ...common, natsUrl: newerNats.url, natsPid: newerNats.pid()!, withBatches: undefined }
    const bench: Bench = { ...common, natsUrl: nats.url, natsPid: nats.pid()!, withBatches }
    const lines: Array<Line> = []
    const failures: Array<string> = []
    for (const row of rows.filter(({ name }) => chosen?.includes(name) ?? true)) {
      console.error(row.name)
      try {
        lines.push(...(await row.run(bench)))
      } catch (error) {
        failures.push(`${row.name}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`)
        console.error(failures.at(-1))
        killAll()
      }
    }
    const [version] = await withClient(databaseUrl, async (client) => {
      const { rows } = await client.query<{ server_version: string }>("SHOW server_version")
      return rows
    })
    const machine = {
      cores: cpus().length,
      processor: cpus()[0]!.model,
      node: process.version,
      postgres: version!.server_version,
      nats: execFileSync(standard, ["--version"], { encoding: "utf8" }).trim(),
      natsWithBatches: newer?.version,
      rounds: bench.rounds
    }
    console.table(lines.map(cells))
    console.log(
      `${machine.cores} × ${machine.processor}, node ${machine.node}, PostgreSQL ${machine.postgres}, ${machine.nats} (for atomic batches ${machine.natsWithBatches ?? "none"}); medians of ${machine.rounds} rounds, least and most`
    )
    for (const failure of failures) console.log(`FAILED ${failure}`)
    if (values.json !== undefined) await writeFile(values.json, JSON.stringify({ machine, lines, failures }, null, 2))
    if (failures.length > 0) process.exitCode = 1
  } finally {
    await nats.close()
    await newerNats?.close()
    await Effect.runPromise(Scope.close(scope, Exit.void))
    await rm(directory, { recursive: true, force: true })
  }
}

run().catch((error: unknown) => {
  console.error(error)
  process.exitCode = 1
})
