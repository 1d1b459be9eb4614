/**
 * How fast the outbox is without a broker: `npm run bench [-- --rounds N --json FILE]`.
 *
 * Starts an embedded PostgreSQL, appends 100,000 events as NDJSON through the command line, publishes them with one
 * pump to a sink that only counts, and then runs `serve` with the file sink on as many and watches its memory.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import { Clock, Console, Effect, Layer } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { createWriteStream } from "node:fs"
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { cpus, tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { parseArgs } from "node:util"
import { OutboxStore, Pump, PumpConfig } from "../../src/index.js"
import { Postgres } from "../../src/postgres/index.js"
import * as EmbeddedPostgres from "../../src/service/EmbeddedPostgres.js"
import { MemorySink } from "../../src/testing/index.js"

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "3" }, json: { type: "string" } }
})
const events = 100_000
const keys = 500
// npm runs scripts in the project's directory.
const bin = resolve("dist/service/bin.js")

const median = (numbers: ReadonlyArray<number>) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)]!

const seconds = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const from = yield* Clock.currentTimeMillis
    yield* effect
    return ((yield* Clock.currentTimeMillis) - from) / 1000
  })

const writeNdjson = (path: string) =>
  Effect.promise(async () => {
    const file = createWriteStream(path)
    for (let n = 0; n < events; n++) {
      const event = {
        type: "tenant.created",
        tenant_id: `t${n % keys}`,
        stack_id: `s${n % 7}`,
        note: "x".repeat(100),
        n
      }
      if (!file.write(`${JSON.stringify(event)}\n`)) await once(file, "drain")
    }
    file.end()
    await once(file, "close")
  })

/** Runs the command line in a directory, and answers when it has ended well. */
const controlpublish = (cwd: string, ...args: ReadonlyArray<string>) =>
  Effect.promise(async () => {
    const child = spawn(process.execPath, [bin, ...args], { cwd, stdio: ["ignore", "ignore", "inherit"] })
    await once(child, "exit")
    if (child.exitCode !== 0) throw new Error(`controlpublish ${args.join(" ")} exited with ${child.exitCode}`)
  })

const round = (cwd: string, postgres: EmbeddedPostgres.EmbeddedPostgres, ndjson: string, schema: string) =>
  Effect.gen(function* () {
    yield* controlpublish(cwd, "migrate", "--database-schema", schema)
    const append = yield* seconds(controlpublish(cwd, "append", "--database-schema", schema, ndjson))
    const publish = yield* seconds(Effect.flatMap(Pump.Pump, (pump) => pump.drain)).pipe(
      Effect.provide(
        Pump.layerManual.pipe(
          Layer.provide(MemorySink.layerWith({ keepFeed: false })),
          Layer.provide(Postgres.layer({ schema })),
          Layer.provide(PgClient.layer({ url: postgres.url })),
          Layer.provide(PumpConfig.layerDefaults)
        )
      )
    )
    return { appended: events / append, published: events / publish }
  })

/** The most memory that `serve` has had resident while it published everything to files, in MB, and its rate. */
const serve = (cwd: string, postgres: EmbeddedPostgres.EmbeddedPostgres, ndjson: string) =>
  Effect.gen(function* () {
    const schema = "served"
    yield* controlpublish(cwd, "migrate", "--database-schema", schema)
    yield* controlpublish(cwd, "append", "--database-schema", schema, ndjson)
    const child = spawn(process.execPath, [bin, "serve", "--sink", "file", "--database-schema", schema], {
      cwd,
      stdio: ["ignore", "ignore", "inherit"]
    })
    const store = yield* OutboxStore.OutboxStore
    const took = yield* seconds(
      store
        .backlog({ limit: 1 })
        .pipe(Effect.delay("100 millis"), Effect.repeat({ until: ({ pending }) => pending.value === 0 }))
    )
    const peak = yield* Effect.promise(() => readFile(`/proc/${child.pid}/status`, "utf8"))
    yield* Effect.promise(async () => {
      const exit = once(child, "exit")
      child.kill("SIGTERM")
      await exit
    })
    return { rate: events / took, peak: Number(/VmHWM:\s+(\d+)/.exec(peak)![1]) / 1024 }
  }).pipe(
    Effect.provide(Postgres.layer({ schema: "served" }).pipe(Layer.provide(PgClient.layer({ url: postgres.url }))))
  )

const program = Effect.gen(function* () {
  const cwd = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "controlpublish-bench-"))),
    (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
  )
  const postgres = yield* EmbeddedPostgres.start({ directory: join(cwd, ".controlpublish") })
  const ndjson = join(cwd, "events.ndjson")
  yield* writeNdjson(ndjson)
  const rounds: Array<{ appended: number; published: number }> = []
  for (let n = 0; n < Number(values.rounds); n++) rounds.push(yield* round(cwd, postgres, ndjson, `round_${n}`))
  const served = yield* serve(cwd, postgres, ndjson)
  const row = (numbers: ReadonlyArray<number>, target: string) => ({
    median: Math.round(median(numbers)),
    least: Math.round(Math.min(...numbers)),
    most: Math.round(Math.max(...numbers)),
    target
  })
  const table = {
    "appended from NDJSON, events/s": row(
      rounds.map((result) => result.appended),
      "–"
    ),
    "published to memory, events/s": row(
      rounds.map((result) => result.published),
      "≥ 25,000"
    ),
    "published to files by serve, events/s": row([served.rate], "–"),
    "serve, peak memory, MB": row([served.peak], "< 200")
  }
  yield* Console.table(table)
  yield* Console.log(`${cpus().length} × ${cpus()[0]!.model}, node ${process.version}`)
  const { json } = values
  if (json !== undefined) yield* Effect.promise(() => writeFile(json, JSON.stringify(table, null, 2)))
})

Effect.runPromise(Effect.scoped(program)).catch((error: unknown) => {
  console.error(error)
  process.exitCode = 1
})
