/**
 * A fleet on one machine: `npm run demo [-- --nodes 3 --rate 20 --jetstream --headless --seconds N --break]`.
 *
 * An admin service changes tenants and stacks, `serve` publishes what it appended, and each node is an `apply` with a
 * database of its own. Keys kill and restart them; `--headless` needs no terminal and does each once, in 20 seconds or as
 * many as are given. At the end every node's tables are compared with the admin's, which is the exit code. `--break` breaks two promises
 * first, to see that the comparison finds it.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Cause, Console, Effect, Exit, Fiber, FiberSet, Layer, Logger, LogLevel, Redacted, Schedule } from "effect"
import type { Scope } from "effect"
import logUpdate from "log-update"
import { readFile, rm } from "node:fs/promises"
import { basename, join, resolve } from "node:path"
import { emitKeypressEvents } from "node:readline"
import { parseArgs } from "node:util"
import * as EmbeddedPostgres from "../../src/cli/EmbeddedPostgres.js"
import * as Admin from "./admin.js"
import * as Database from "./database.js"
import { DemoError } from "./error.js"
import * as Feed from "./feed.js"
import * as Program from "./program.js"
import * as View from "./view.js"
import { openDirectory } from "../support/openDirectory.js"

const { values } = parseArgs({
  options: {
    nodes: { type: "string" },
    rate: { type: "string" },
    jetstream: { type: "boolean", default: false },
    headless: { type: "boolean", default: false },
    seconds: { type: "string" },
    break: { type: "boolean", default: false },
    // What is run for the pump and the nodes.
    program: { type: "string", default: "src/cli/dist/bin.js" }
  }
})

const integer = (
  name: "nodes" | "rate" | "seconds",
  most: number,
  absent: number
): Effect.Effect<number, DemoError> => {
  const text = values[name]
  if (text === undefined) return Effect.succeed(absent)
  return /^\d+$/.test(text) && Number(text) >= 1 && Number(text) <= most
    ? Effect.succeed(Number(text))
    : new DemoError({ message: `--${name}: got ${JSON.stringify(text)}, valid is an integer from 1 to ${most}` })
}

/** How long nodes get to catch up in the end. */
const patience = "1 minute"

interface Node {
  readonly name: string
  readonly database: Database.Database
  readonly program: Program.Program
}

/** Everything that runs. */
interface Fleet {
  readonly admin: Database.Database
  readonly feed: Feed.Feed
  readonly pump: Program.Program
  readonly nodes: ReadonlyArray<Node>
}

const temporaryDirectory = Effect.acquireRelease(
  Effect.promise(() => openDirectory("controlpublish-demo-")),
  (directory) => Effect.promise(() => rm(directory, { recursive: true, force: true, maxRetries: 20 }))
)

const start = (directory: string, nodes: number) =>
  Effect.gen(function* () {
    const server = yield* EmbeddedPostgres.start({ directory: join(directory, "postgres") })
    const serverUrl = Redacted.value(server.superuserUrl)
    const root = yield* Database.database(serverUrl)
    const created = (name: string) =>
      Effect.gen(function* () {
        yield* root.query(`CREATE DATABASE ${name}`)
        const url = new URL(serverUrl)
        url.pathname = `/${name}`
        const database = yield* Database.database(url.href)
        yield* database.query(Database.tables)
        return database
      })
    const admin = yield* created("admin")
    const feed = yield* values.jetstream ? Feed.jetStream : Feed.file(directory)
    const artifacts = join(directory, "artifacts")
    const service = yield* Layer.build(Admin.layer({ url: admin.url, artifacts }))
    const run = (name: string, command: string, env: Readonly<Record<string, string>>) =>
      Program.start([resolve(values.program), command], {
        cwd: directory,
        env: { ...feed.env, ...env },
        log: join(directory, `${name}.log`)
      })
    const pump = yield* run("pump", "serve", { DATABASE_URL: admin.url })
    const names = Array.from({ length: nodes }, (_, index) => `node_${index + 1}`)
    const fleet: Fleet = {
      admin,
      feed,
      pump,
      nodes: yield* Effect.forEach(names, (name) =>
        Effect.gen(function* () {
          const database = yield* created(name)
          const settings = {
            DATABASE_URL: database.url,
            ARTIFACT_DIR: artifacts,
            APPLY_TABLES: "public.tenants,public.stacks"
          }
          return { name, database, program: yield* run(name, "apply", settings) }
        })
      )
    }
    return { fleet, service }
  })

const look = ({ admin, feed, nodes, pump }: Fleet, said: ReadonlyArray<string>): Effect.Effect<View.View, DemoError> =>
  Effect.gen(function* () {
    // The nodes first: none is ahead of the feed then.
    const seen = yield* Effect.forEach(
      nodes,
      ({ database, name, program }) =>
        Effect.map(Database.position(database), (position) => ({ name, position, isUp: program.isRunning() })),
      { concurrency: "unbounded" }
    )
    const outbox = yield* Database.outbox(admin)
    return {
      ...outbox,
      nodes: seen,
      feed: { name: feed.name, isUp: feed.isUp() },
      pump: { isUp: pump.isRunning() },
      said
    }
  })

const isCaughtUp = ({ changes, newest, nodes, published }: View.View): boolean =>
  published === changes && nodes.every(({ position }) => position === newest)

/** Does what a key stands for, and says what it did: "" for a key that stands for nothing. */
const press = ({ feed, nodes, pump }: Fleet, key: string): Effect.Effect<string> => {
  const toggle = (name: string, program: Program.Program) =>
    program.isRunning()
      ? Effect.as(program.end("SIGKILL"), `killed ${name}`)
      : Effect.as(program.start, `restarted ${name}`)
  const node = nodes[Number(key) - 1]
  if (node !== undefined) return toggle(node.name, node.program)
  if (key === "p") return toggle("the pump", pump)
  if (key !== "f") return Effect.succeed("")
  return feed.isUp() ? Effect.as(feed.down, "took the feed down") : Effect.as(feed.up, "the feed is up again")
}

/** Makes one node lose events, and another one forget what it has applied. */
const breakPromises = ({ admin, nodes }: Fleet) => {
  const whileDead = (
    node: Node | undefined,
    change: (database: Database.Database) => Effect.Effect<unknown, DemoError>
  ) =>
    node === undefined
      ? Effect.void
      : node.program.end("SIGKILL").pipe(Effect.zipRight(change(node.database)), Effect.zipRight(node.program.start))
  const skip = (database: Database.Database) =>
    Effect.gen(function* () {
      const position = yield* Database.position(database)
      const { newest } = yield* Effect.repeat(Effect.delay(Database.outbox(admin), "50 millis"), {
        until: ({ newest }) => newest > position
      })
      yield* database.query(`UPDATE applied_position SET control_version = ${newest}`)
    })
  const forget = ({ query }: Database.Database) =>
    Effect.zipRight(query("DELETE FROM applied_events"), query("UPDATE applied_position SET control_version = 0"))
  return Effect.zipRight(whileDead(nodes[0], skip), whileDead(nodes[1], forget))
}

/** Gives keys to a listener while the scope is open. */
const listen = (listener: (key: string) => void): Effect.Effect<void, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const onKey = (_text: string, key: { readonly sequence: string }) => {
        listener(key.sequence === "\u0003" ? "q" : key.sequence)
      }
      emitKeypressEvents(process.stdin)
      process.stdin.setRawMode(true).resume().on("keypress", onKey)
      return onKey
    }),
    (onKey) => Effect.sync(() => process.stdin.off("keypress", onKey).setRawMode(false).pause())
  ).pipe(Effect.asVoid)

/** What is pressed without a terminal, and when, as a share of the time. */
const planned = ["1", "1", "p", "p", "f", "f"].map((key, index) => ({ key, at: (index + 1) / 8 }))

const program = Effect.gen(function* () {
  const nodes = yield* integer("nodes", 9, 3)
  const rate = yield* integer("rate", 1_000, 20)
  const headless = values.headless || !process.stdout.isTTY
  const seconds = yield* integer("seconds", 86_400, headless ? 20 : Infinity)
  const directory = yield* temporaryDirectory
  yield* Console.log(`Starting PostgreSQL, the pump and ${nodes} nodes in ${directory}`)
  const { fleet, service } = yield* start(directory, nodes)

  const said: Array<string> = []
  const say = (line: string) =>
    headless
      ? Console.log(line)
      : Effect.sync(() => {
          said.splice(0, said.length - 2)
          said.push(line)
        })
  const show = Effect.flatMap(look(fleet, said), (view) =>
    headless ? Console.log(View.line(view)) : Effect.sync(() => logUpdate(View.screen(view)))
  )
  const watching = yield* Effect.fork(Effect.repeat(show, Schedule.spaced(headless ? "1 second" : "200 millis")))

  const changing = yield* Effect.uninterruptible(Admin.change).pipe(
    Effect.repeat(Schedule.fixed(1_000 / rate)),
    Effect.provide(service),
    Effect.fork
  )

  // One after another: keys come faster than processes end.
  const one = yield* Effect.makeSemaphore(1)
  const quit = yield* Effect.makeLatch(false)
  const hurry = yield* Effect.makeLatch(false)
  let quitting = false
  const onKey = (key: string) =>
    Effect.gen(function* () {
      if (key === "q") yield* quitting ? hurry.open : quit.open
      if (quitting) return
      const done = yield* press(fleet, key)
      if (done !== "") yield* say(done)
    }).pipe(one.withPermits(1))
  const run = yield* FiberSet.makeRuntime()
  if (!headless) yield* listen((key) => run(onKey(key)))
  // The time begins when a first change has reached every node.
  yield* Effect.repeat(Effect.delay(look(fleet, said), "100 millis"), {
    until: ({ nodes }) => nodes.every(({ position }) => position > 0)
  }).pipe(Effect.timeoutOption(patience), Effect.raceFirst(quit.await))
  if (headless) planned.forEach(({ at, key }) => run(Effect.delay(onKey(key), at * seconds * 1_000)))
  if (Number.isFinite(seconds)) run(Effect.delay(onKey("q"), seconds * 1_000))
  yield* Effect.raceFirst(quit.await, Effect.raceFirst(Fiber.join(changing), Fiber.join(watching)))

  yield* Effect.gen(function* () {
    quitting = true
    // Everything is well again, and the nodes may catch up.
    yield* fleet.feed.up
    yield* Effect.forEach([fleet.pump, ...fleet.nodes.map(({ program }) => program)], ({ start }) => start)
    if (values.break) yield* breakPromises(fleet)
    yield* Fiber.interrupt(changing)
  }).pipe(one.withPermits(1))
  yield* say("stopped; the nodes catch up")
  yield* look(fleet, said).pipe(
    Effect.delay("100 millis"),
    Effect.repeat({ until: isCaughtUp }),
    Effect.timeoutOption(patience),
    Effect.raceFirst(hurry.await)
  )
  yield* Fiber.interrupt(watching)
  yield* show
  if (!headless) logUpdate.done()

  const { changes, published } = yield* Database.outbox(fleet.admin)
  const differing = yield* Effect.forEach(fleet.nodes, ({ database }) => Database.differences(fleet.admin, database))
  yield* Console.log(`${changes} changes, ${published} of them published`)
  yield* Effect.forEach(fleet.nodes, ({ name }, index) => {
    const tables = differing[index]!
    return Console.log(
      `${name}: ${tables.length === 0 ? "the same as the admin's" : `DIFFERS in ${tables.join(", ")}`}`
    )
  })
  yield* Effect.forEach(fleet.nodes, ({ program }) => program.end("SIGTERM"), { concurrency: "unbounded" })
  yield* fleet.pump.end("SIGTERM")
  const well = published === changes && differing.every((tables) => tables.length === 0)
  if (!well) yield* Effect.forEach([fleet.pump, ...fleet.nodes.map(({ program }) => program)], printLog)
  return well
})

const printLog = ({ log }: Program.Program) =>
  Effect.flatMap(
    Effect.promise(() => readFile(log, "utf8")),
    (text) => Console.log(`${basename(log)}:\n${text.split("\n").slice(-5).join("\n")}`)
  )

const codeOf = (exit: Exit.Exit<unknown, unknown>): number => {
  if (Exit.isSuccess(exit)) return exit.value === true ? 0 : 1
  return Cause.isInterruptedOnly(exit.cause) ? 130 : 1
}

program.pipe(
  Effect.scoped,
  Effect.catchAll((error) => Effect.as(Console.error(error.message), false)),
  Logger.withMinimumLogLevel(LogLevel.Warning),
  NodeRuntime.runMain({ teardown: (exit, onExit) => onExit(codeOf(exit)) })
)
