import { DeliverPolicy, jetstreamManager, type JetStreamManager } from "@nats-io/jetstream"
import { connect, nanos, type NatsConnection } from "@nats-io/transport-node"
import { build, type Plugin } from "esbuild"
import { Effect, Exit, Redacted, Scope } from "effect"
import { spawn, type ChildProcess } from "node:child_process"
import { once } from "node:events"
import { readFile, rm } from "node:fs/promises"
import { createWriteStream } from "node:fs"
import { join } from "node:path"
import { createInterface } from "node:readline"
import * as Pg from "pg"
import * as EmbeddedPostgres from "../../src/cli/EmbeddedPostgres.js"
import { leastForBatches, programOf, startNats } from "../support/nats.js"
import { startNatsCluster } from "../support/natsCluster.js"
import { openValve } from "../support/valve.js"
import { breaks } from "./breaks.js"
import type { History, Message, Row, Transaction } from "./history.js"
import { serves, writers, type Plan, type Server } from "./plan.js"
import { openDirectory } from "../support/openDirectory.js"

// npm runs scripts, and vitest tests, in the project's directory.
const root = process.cwd()

export const stream = "control-events"

/** Short, so that an outage is longer. */
const duplicateWindow = 2_000

export const pause = (millis: number) => new Promise<void>((resolve) => setTimeout(resolve, millis))

/** Waits for something, and answers whether it came in time. */
export const until = async (condition: () => boolean, millis: number): Promise<boolean> => {
  const end = performance.now() + millis
  while (!condition()) {
    if (performance.now() > end) return false
    await pause(20)
  }
  return true
}

/** Replaces text of the source; text that is not there any more, or there twice, is an error. */
const breaking = (name: string | undefined): Plugin => ({
  name: "break",
  setup: (build) => {
    if (name === undefined) return
    const replacements = breaks[name]
    if (replacements === undefined) throw new Error(`--break: valid is ${Object.keys(breaks).join(", ")}`)
    build.onLoad({ filter: /\/src\/.*\.ts$/ }, async ({ path }) => {
      let contents = await readFile(path, "utf8")
      for (const { file, from, to } of replacements) {
        if (!path.endsWith(file)) continue
        if (contents.split(from).length !== 2) throw new Error(`--break ${name}: ${file} has changed`)
        contents = contents.replace(from, () => to)
      }
      return { contents, loader: "ts" }
    })
  }
})

/** Bundles a program for plain node, within the project, so that packages resolve. */
const bundle = async (entry: string, name?: string): Promise<string> => {
  const outfile = join(
    root,
    "node_modules/.cache/controlpublish",
    `faults-${process.pid}-${entry.replaceAll(/\W/g, "-")}.mjs`
  )
  await build({
    entryPoints: [join(root, entry)],
    outfile,
    bundle: true,
    packages: "external",
    platform: "node",
    format: "esm",
    target: "node20",
    plugins: [breaking(name)]
  })
  return outfile
}

const ended = (child: ChildProcess) => child.exitCode !== null || child.signalCode !== null

const end = async (child: ChildProcess, signal: NodeJS.Signals): Promise<void> => {
  if (ended(child)) return
  const exit = once(child, "exit")
  child.kill(signal)
  await exit
}

/** Servers, writers and pumps, and the valves between them. */
export const openRig = async (
  plan: Plan,
  options: { readonly break?: string | undefined; readonly clients: 1 | 2; readonly log: (line: string) => void }
) => {
  const directory = await openDirectory("controlpublish-faults-")
  const service = await bundle("src/cli/bin.ts", options.break)
  const writer = await bundle(`test/faults/${options.clients === 1 ? "writer" : "clientsWriter"}.ts`)

  // The database: another port after each start.
  let scope = await Effect.runPromise(Scope.make())
  const startDatabase = async () => {
    for (let attempt = 0; ; attempt++) {
      try {
        const starting = EmbeddedPostgres.start({ directory: join(directory, "pg") }).pipe(Scope.extend(scope))
        return new URL(Redacted.value((await Effect.runPromise(starting)).superuserUrl))
      } catch (error) {
        // The processes of a server that was killed take a moment to end.
        if (attempt > 20) throw error
        await pause(200)
      }
    }
  }
  let database = await startDatabase()
  const through = (port: number): string => {
    const url = new URL(database)
    url.port = String(port)
    return url.href
  }
  const query = async <R extends Pg.QueryResultRow>(text: string): Promise<ReadonlyArray<R>> => {
    const client = new Pg.Client({ connectionString: database.href })
    client.on("error", () => {})
    await client.connect()
    try {
      return (await client.query<R>(text)).rows
    } finally {
      await client.end()
    }
  }

  const command = plan.publish === "message" ? undefined : programOf(leastForBatches)?.command
  const brokers = plan.cluster ? await startNatsCluster(3, command) : [await startNats({ command })]
  const withBroker = async <A>(use: (nc: NatsConnection, manager: JetStreamManager) => Promise<A>): Promise<A> => {
    for (const deadline = performance.now() + 60_000; ;) {
      try {
        const nc = await connect({ servers: brokers.map(({ url }) => url) })
        try {
          return await use(nc, await jetstreamManager(nc, { checkAPI: false }))
        } finally {
          await nc.close()
        }
      } catch (error) {
        // A cluster elects its leaders first.
        if (!plan.cluster || performance.now() > deadline) throw error
        await pause(200)
      }
    }
  }
  const createStream = () =>
    withBroker((_, manager) =>
      manager.streams.add({
        name: stream,
        subjects: ["control.events.>"],
        duplicate_window: nanos(duplicateWindow),
        num_replicas: brokers.length,
        // Servers that have no atomic batches ignore it.
        allow_atomic: true
      })
    )
  await createStream()
  const replica = async (role: "leader" | "follower") => {
    const { cluster } = await withBroker((_, manager) => manager.streams.info(stream))
    const name = role === "leader" ? cluster?.leader : cluster?.replicas?.[0]?.name
    return brokers[Number(name?.slice(1)) - 1]
  }

  const valves = await Promise.all(
    Array.from({ length: serves }, async (_, index) => ({
      database: await openValve(() => Number(database.port)),
      broker: await openValve(() => brokers[index % brokers.length]!.port)
    }))
  )
  const writersValve = await openValve(() => Number(database.port))

  const log = createWriteStream(join(directory, "serve.log"))
  const pumps: Array<ChildProcess | undefined> = []
  /** Those that have said that they run: a signal before that ends a process as it ends any. */
  const running = new WeakSet<ChildProcess>()
  const startServe = (index: number) => {
    const { broker, database } = valves[index]!
    broker.cut()
    database.cut()
    for (const valve of [broker, database]) valve.set({ toServer: "pass", toClient: "pass" })
    const child = spawn(process.execPath, [service, "serve"], {
      cwd: directory,
      stdio: ["ignore", "pipe", "pipe"],
      env: {
        ...process.env,
        DATABASE_URL: through(database.port),
        FEED_SINK: "jetstream",
        NATS_URL: `nats://127.0.0.1:${broker.port}`,
        NATS_STREAM: stream,
        NATS_MIN_DUPLICATE_WINDOW: `${duplicateWindow}ms`,
        NATS_DEDUPLICATION: plan.deduplication,
        NATS_PUBLISH: plan.publish,
        PUMP_PUBLISH_TIMEOUT: "2s",
        PUMP_DRAIN_TIMEOUT: "4s",
        FEED_SINK_BATCH_SIZE: "50",
        ADMIN_PORT: "0"
      }
    })
    child.stdout.pipe(log, { end: false })
    child.stdout.on("data", () => running.add(child))
    child.stderr.pipe(log, { end: false })
    pumps[index] = child
  }

  /** Waits until a `serve` runs. One that ended before, because the database was away, is started again. */
  const untilRunning = async (index: number) => {
    const isRunning = await until(() => {
      const child = pumps[index]!
      if (ended(child) && running.has(child)) throw new Error(`The ${index}. serve ended by itself`)
      if (ended(child)) startServe(index)
      return running.has(pumps[index]!)
    }, 60_000)
    if (!isRunning) throw new Error(`The ${index}. serve does not start: see ${directory}/serve.log (--keep)`)
  }

  const transactions = new Map<string, Transaction>()
  const appenders: Array<ChildProcess | undefined> = []
  const next = Array.from({ length: writers }, () => 1)
  const startWriter = (index: number) => {
    const name = `w${index}`
    const child = spawn(process.execPath, [writer, through(writersValve.port), name, String(next[index])], {
      stdio: ["ignore", "pipe", "inherit"]
    })
    createInterface({ input: child.stdout }).on("line", (line) => {
      // What it said last of a transaction counts; a line that a kill cut short says nothing.
      if (!line.endsWith("}")) return
      const transaction = JSON.parse(line) as Transaction
      transactions.set(`${name}-${transaction.number}`, transaction)
      next[index] = Math.max(next[index]!, transaction.number + 1)
    })
    appenders[index] = child
  }

  const killServe = async (index: number, signal: NodeJS.Signals = "SIGKILL") => {
    const child = pumps[index]
    if (child !== undefined) await end(child, signal)
  }

  return {
    directory,
    valve: (index: number, server: Server) => valves[index]![server],
    pump: (index: number) => pumps[index]!,
    isRunning: (child: ChildProcess) => running.has(child),
    startServe,
    killServe,
    stopServes: async () => {
      for (let index = 0; index < serves; index++) await killServe(index, "SIGTERM")
    },
    startWriter,
    killWriter: async (index: number) => {
      await end(appenders[index]!, "SIGKILL")
      // Its last transaction may be at the server still, and the number is not known to be free.
      next[index]! += 1
    },
    untilRunning,
    /** Ready when every `serve` runs. The first one migrates. */
    ready: async () => {
      for (let index = 0; index < serves; index++) {
        startServe(index)
        if (index === 0) await untilRunning(0)
      }
      for (let index = 1; index < serves; index++) await untilRunning(index)
    },
    crashDatabase: async () => {
      const pid = Number.parseInt(await readFile(join(directory, "pg/postgres/postmaster.pid"), "utf8"), 10)
      process.kill(pid, "SIGKILL")
      await Effect.runPromise(Scope.close(scope, Exit.void))
      scope = await Effect.runPromise(Scope.make())
      database = await startDatabase()
    },
    crashBroker: async (down: number) => {
      // One after another: nats-server 2.9.10 was seen without a leader for good after all of a cluster were killed at once.
      for (const broker of brokers) {
        await broker.kill("SIGKILL")
        await pause(down)
        await broker.start()
        if (plan.cluster) await withBroker((_, manager) => manager.streams.info(stream))
      }
    },
    killReplica: async (role: "leader" | "follower", down: number) => {
      const broker = await replica(role)
      await broker?.kill("SIGKILL")
      await pause(down)
      await broker?.start()
    },
    stepDown: () => withBroker((nc) => nc.request(`$JS.API.STREAM.LEADER.STEPDOWN.${stream}`)),
    /** As docs/restoring-a-stream.md says. */
    restore: async () => {
      await withBroker((_, manager) => manager.streams.delete(stream))
      await createStream()
      await query(
        "UPDATE control_events_outbox SET published_control_version = NULL, published_at = NULL WHERE published_at IS NOT NULL"
      )
    },
    appended: () => transactions.size,
    pending: async () => {
      const [row] = await query<{ count: string }>(
        "SELECT count(*) FROM control_events_outbox WHERE published_at IS NULL AND parked_at IS NULL"
      )
      return Number(row!.count)
    },
    history: async (): Promise<History> => {
      const rows = await query<{ event_id: string; ordering_key: string; version: string | null; parked: boolean }>(
        `SELECT event_id, ordering_key, published_control_version AS version, parked_at IS NOT NULL AS parked
          FROM control_events_outbox ORDER BY id`
      )
      const messages = await withBroker(async (_, manager) => {
        const { state } = await manager.streams.info(stream)
        const found: Array<Message> = []
        let next = Math.max(state.first_seq, 1)
        // A replica that is behind ends before the stream does.
        while (next <= state.last_seq) {
          const from = { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: next }
          const consumer = await manager.jetstream().consumers.get(stream, from)
          if ((await consumer.info()).num_pending === 0) {
            await pause(200)
            continue
          }
          const reading = await consumer.consume({ max_messages: 5_000 })
          for await (const message of reading) {
            if (message.seq >= next) {
              found.push({ sequence: message.seq, eventId: message.json<{ event_id: string }>().event_id })
              next = message.seq + 1
            }
            if (message.info.pending === 0) break
          }
          await reading.close()
        }
        return found
      })
      return {
        transactions: Array.from(transactions.values()),
        messages,
        rows: rows.map((row): Row => ({
          eventId: row.event_id,
          key: row.ordering_key,
          version: row.version === null ? undefined : Number(row.version),
          parked: row.parked
        }))
      }
    },
    close: async (keep: boolean) => {
      for (const child of [...pumps, ...appenders]) if (child !== undefined) await end(child, "SIGKILL")
      for (const { broker, database } of valves) {
        broker.close()
        database.close()
      }
      writersValve.close()
      await Promise.all(brokers.map((broker) => broker.close()))
      await Effect.runPromise(Scope.close(scope, Exit.void))
      log.end()
      await rm(service, { force: true })
      await rm(writer, { force: true })
      if (!keep) await rm(directory, { recursive: true, force: true, maxRetries: 10 })
    }
  }
}

export type Rig = Awaited<ReturnType<typeof openRig>>
