/**
 * A fleet on one machine: `npm run demo [-- --nodes 3 --rate 20 --jetstream --headless --seconds N]`.
 *
 * An admin service changes tenants and stacks, `serve` publishes what it appended, and each node is an `apply` with a
 * database of its own. Keys kill and restart them. At the end every node's tables are compared with the admin's, which is
 * the exit code.
 */
import { Effect, Exit, Layer, ManagedRuntime, Redacted, Scope } from "effect"
import logUpdate from "log-update"
import { mkdir, mkdtemp, rename, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { emitKeypressEvents } from "node:readline"
import { parseArgs, styleText } from "node:util"
import * as Pg from "pg"
import * as EmbeddedPostgres from "../../src/service/EmbeddedPostgres.js"
import { howToInstall, isInstalled, startNats } from "../support/nats.js"
import * as Admin from "./admin.js"
import { program, type Program } from "./process.js"

const { values } = parseArgs({
  options: {
    nodes: { type: "string", default: "3" },
    rate: { type: "string", default: "20" },
    jetstream: { type: "boolean", default: false },
    headless: { type: "boolean", default: false },
    seconds: { type: "string" }
  }
})

const integer = (name: "nodes" | "rate" | "seconds", text: string, most: number): number => {
  if (!/^\d+$/.test(text) || Number(text) < 1 || Number(text) > most) {
    throw new Error(`--${name}: got ${JSON.stringify(text)}, valid is an integer from 1 to ${most}`)
  }
  return Number(text)
}

const nodes = integer("nodes", values.nodes, 9)
const rate = integer("rate", values.rate, 1_000)
const seconds = values.seconds === undefined ? undefined : integer("seconds", values.seconds, 86_400)
const headless = values.headless || !process.stdout.isTTY

const pause = (millis: number) => new Promise<void>((done) => setTimeout(done, millis))

/** How long nodes get to catch up in the end. */
const patience = 60_000

interface Feed {
  readonly name: string
  readonly env: Readonly<Record<string, string>>
  readonly isUp: () => boolean
  readonly down: () => Promise<void>
  readonly up: () => Promise<void>
  readonly close: () => Promise<void>
}

/** A directory, which is moved away to take the feed down. */
const fileFeed = async (directory: string): Promise<Feed> => {
  const path = join(directory, "feed")
  await mkdir(path)
  let isUp = true
  return {
    name: path,
    env: { FEED_SINK: "file", FEED_SINK_FILE_DIR: path, FEED_SOURCE: "file", FEED_SOURCE_FILE_DIR: path },
    isUp: () => isUp,
    down: async () => {
      await rename(path, `${path}.away`)
      isUp = false
    },
    up: async () => {
      // A pump that found none has made a new one.
      await rm(path, { recursive: true, force: true })
      await rename(`${path}.away`, path)
      isUp = true
    },
    close: () => Promise.resolve()
  }
}

const jetStreamFeed = async (): Promise<Feed> => {
  if (!isInstalled) throw new Error(howToInstall)
  const nats = await startNats()
  let isUp = true
  return {
    name: `the stream control-events at ${nats.url}`,
    env: { FEED_SINK: "jetstream", FEED_SOURCE: "jetstream", NATS_URL: nats.url, NATS_MANAGE_STREAM: "true" },
    isUp: () => isUp,
    down: async () => {
      isUp = false
      await nats.kill()
    },
    up: async () => {
      await nats.start()
      isUp = true
    },
    close: () => nats.close()
  }
}

const query = async <R extends Pg.QueryResultRow>(url: string, text: string): Promise<ReadonlyArray<R>> => {
  const client = new Pg.Client({ connectionString: url })
  client.on("error", () => {})
  await client.connect()
  try {
    return (await client.query<R>(text)).rows
  } finally {
    await client.end()
  }
}

const contents = async (url: string): Promise<string> =>
  JSON.stringify([
    await query(url, "SELECT * FROM tenants ORDER BY id"),
    await query(url, "SELECT * FROM stacks ORDER BY id")
  ])

interface Node {
  readonly name: string
  readonly url: string
  readonly program: Program
}

const positionOf = async ({ url }: Node): Promise<number> =>
  query<{ position: number }>(url, "SELECT control_version::int AS position FROM applied_position").then(
    ([row]) => row?.position ?? 0,
    // Its first start has not migrated yet.
    () => 0
  )

const run = async (): Promise<boolean> => {
  const directory = await mkdtemp(join(tmpdir(), "controlpublish-demo-"))
  const scope = await Effect.runPromise(Scope.make())
  const programs: Array<Program> = []
  let feed: Feed | undefined
  try {
    const starting = EmbeddedPostgres.start({ directory: join(directory, "postgres") })
    const server = await Effect.runPromise(Scope.extend(starting, scope))
    const databaseUrl = (name: string) => {
      const url = new URL(Redacted.value(server.url))
      url.pathname = `/${name}`
      return url.href
    }
    const names = Array.from({ length: nodes }, (_, index) => `node_${index + 1}`)
    for (const name of ["admin", ...names]) {
      await query(Redacted.value(server.url), `CREATE DATABASE ${name}`)
      await query(databaseUrl(name), Admin.tables)
    }
    feed = values.jetstream ? await jetStreamFeed() : await fileFeed(directory)
    const artifacts = join(directory, "artifacts")
    const adminUrl = databaseUrl("admin")
    const runtime = ManagedRuntime.make(
      Layer.tapError(Admin.layer({ url: adminUrl, artifacts }), (error) => Effect.logError(error))
    )
    await runtime.runPromise(Effect.void)

    const bin = resolve("dist/service/bin.js")
    const start = (name: string, args: ReadonlyArray<string>, env: Readonly<Record<string, string>>) => {
      const started = program([bin, ...args], { cwd: directory, env, log: join(directory, `${name}.log`) })
      programs.push(started)
      started.start()
      return started
    }
    const pump = start("pump", ["serve"], { DATABASE_URL: adminUrl, ...feed.env })
    const fleet = names.map((name): Node => {
      const url = databaseUrl(name)
      const env = {
        ...feed!.env,
        DATABASE_URL: url,
        ARTIFACT_DIR: artifacts,
        APPLY_TABLES: "public.tenants,public.stacks"
      }
      return { name, url, program: start(name, ["apply"], env) }
    })

    let changes = 0
    let stopping = false
    const began = Date.now()
    const admin = (async () => {
      while (!stopping) {
        await runtime.runPromise(Admin.change)
        changes++
        await pause(Math.max(0, began + (changes * 1_000) / rate - Date.now()))
      }
    })()

    const look = async () => {
      const backlog = await runtime.runPromise(Admin.backlog)
      const [row] = await query<{ published: number; newest: number }>(
        adminUrl,
        "SELECT count(*)::int AS published, coalesce(max(published_control_version), 0)::int AS newest FROM control_events_outbox WHERE published_at IS NOT NULL"
      )
      const positions = await Promise.all(fleet.map(positionOf))
      return { pending: backlog.pending.value, published: row!.published, newest: row!.newest, positions }
    }
    type View = Awaited<ReturnType<typeof look>>

    const up = (is: boolean) => (is ? styleText("green", "up  ") : styleText("red", "down"))
    const show = ({ newest, pending, positions, published }: View): string =>
      [
        styleText("bold", "controlpublish: an admin service and its fleet"),
        `feed: ${feed!.name}`,
        "",
        `  admin   ${up(true)}  ${changes} changes, ${pending} pending in the outbox`,
        `  pump    ${up(pump.isRunning())}  ${published} published, newest version ${newest}`,
        `  feed    ${up(feed!.isUp())}`,
        ...fleet.map(({ name, program }, index) => {
          const behind = newest - positions[index]!
          const lag = behind <= 0 ? styleText("green", "up to date") : styleText("yellow", `behind by ${behind}`)
          return `  ${name}  ${up(program.isRunning())}  at version ${positions[index]!}, ${lag}`
        }),
        "",
        `keys: 1–${nodes} kill (-9) or restart a node · p the pump · f take the feed down or up · q stop and compare`
      ].join("\n")
    const line = ({ newest, pending, positions, published }: View): string =>
      `${changes} changes, ${pending} pending, ${published} published (version ${newest}), nodes at ${positions.join(", ")}`

    const toggle = async (program: Program) => {
      if (program.isRunning()) await program.end("SIGKILL")
      else program.start()
    }
    let quit = () => {}
    const asked = new Promise<void>((done) => {
      quit = done
    })
    const onKey = (key: string): Promise<void> => {
      const node = fleet[Number(key) - 1]
      if (node !== undefined) return toggle(node.program)
      if (key === "p") return toggle(pump)
      if (key === "f") return feed!.isUp() ? feed!.down() : feed!.up()
      if (key === "q" || key === "\u0003") quit()
      return Promise.resolve()
    }
    // Without keys each is killed once.
    const planned = (["1", "1", "p", "p", "f", "f"] as const).map((key, index) => ({
      key,
      at: ((index + 1) / 8) * (seconds ?? Infinity) * 1_000
    }))
    if (seconds !== undefined) setTimeout(quit, seconds * 1_000).unref()
    process.once("SIGINT", quit).once("SIGTERM", quit)
    if (!headless) {
      emitKeypressEvents(process.stdin)
      process.stdin.setRawMode(true).resume()
      process.stdin.on("keypress", (_text: string, key: { sequence: string }) => void onKey(key.sequence))
    }
    let ended = false
    const watching = (async () => {
      while (!ended) {
        const view = await look()
        if (headless) console.log(line(view))
        else logUpdate(show(view))
        while (headless && planned[0] !== undefined && Date.now() - began >= planned[0].at) {
          const { key } = planned.shift()!
          console.log(`key ${key}`)
          await onKey(key)
        }
        await pause(headless ? 1_000 : 200)
      }
    })()

    await asked
    stopping = true
    await admin
    // Everything is well again, and the nodes may catch up.
    if (!feed.isUp()) await feed.up()
    for (const { start } of programs) start()
    const deadline = Date.now() + patience
    for (;;) {
      const { newest, pending, positions } = await look()
      if (pending === 0 && positions.every((position) => position === newest)) break
      if (Date.now() > deadline) break
      await pause(100)
    }
    ended = true
    await watching
    if (!headless) {
      logUpdate.done()
      process.stdin.setRawMode(false).pause()
    }

    const wanted = await contents(adminUrl)
    const found = await Promise.all(fleet.map(({ url }) => contents(url)))
    const same = found.map((each) => each === wanted)
    const { pending, published } = await look()
    console.log(`${changes} changes, ${published} events published, ${pending} pending`)
    fleet.forEach(({ name }, index) => {
      console.log(`${name}: its tables ${same[index] === true ? "are the admin's" : "DIFFER from the admin's"}`)
    })
    await Promise.all(programs.map(({ end }) => end("SIGTERM")))
    await runtime.dispose()
    return pending === 0 && published === changes && same.every(Boolean)
  } finally {
    await Promise.all(programs.map(({ end }) => end("SIGKILL")))
    await feed?.close()
    await Effect.runPromise(Scope.close(scope, Exit.void))
    await rm(directory, { recursive: true, force: true, maxRetries: 20 })
  }
}

run().then(
  (well) => {
    process.exitCode = well ? 0 : 1
  },
  (error: unknown) => {
    console.error(error instanceof Error ? error.message : error)
    process.exitCode = 1
  }
)
