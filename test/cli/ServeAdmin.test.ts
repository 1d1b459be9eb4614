import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import * as Fs from "node:fs/promises"
import * as Net from "node:net"
import * as Path from "node:path"
import { vi } from "vitest"
import * as EmbeddedPostgres from "../../src/cli/EmbeddedPostgres.js"
import { layerDatabase, rawClient, TestDatabase } from "../support/postgres.js"
import * as Controlpublish from "./support/controlpublish.js"
import * as Http from "../admin/support/http.js"

vi.setConfig({ testTimeout: 60_000 })

const token = "pl4nted-t0ken-of-32-characters-x"

const bearer = { authorization: `Bearer ${token}` }

const reason = { reason: "a test" }

const until = <A>(self: Effect.Effect<A>, predicate: (value: A) => boolean) =>
  Effect.repeat(Effect.delay(self, "50 millis"), { until: predicate })

/** `serve` with its API, in a directory of its own if none is given. */
const serve = (given: Record<string, string>, directory?: string) =>
  Effect.gen(function* () {
    const program = yield* Controlpublish.Program
    const cwd = directory ?? (yield* Controlpublish.workingDirectory)
    const env = { FEED_SINK: "file", ADMIN_PORT: "0", ...given }
    const running = yield* Controlpublish.start(program, ["serve"], { cwd, env })
    yield* running.waitFor(/Stop with Ctrl-C/)
    const [, url, port] = /^ {2}admin +(http:\/\/.*:(\d+)) /m.exec(yield* running.printed)!
    return {
      cwd,
      running,
      url: url!,
      port: Number(port),
      get: (path: string, headers = {}) => Http.send(Number(port), { path, headers }),
      post: (path: string, body: unknown, headers = {}) => Http.send(Number(port), { path, body, headers }),
      run: (args: ReadonlyArray<string>, more: Record<string, string> = {}) =>
        Controlpublish.run(program, args, { cwd, env: { ...env, ...more } }),
      feed: Effect.promise(() => Fs.readdir(Path.join(cwd, "feed"))).pipe(
        Effect.map((files) => files.filter((file) => /^[^.].*\.json$/.test(file)))
      )
    }
  })

/** A database with an owner whose password nobody may read anywhere. */
const plantedUrl = Effect.gen(function* () {
  const { name, url } = yield* TestDatabase
  const client = yield* rawClient
  const planted = new URL(Redacted.value(url))
  planted.username = name
  planted.password = "pl4nted-passw0rd"
  yield* Effect.acquireRelease(
    Effect.promise(() => client.query(`CREATE ROLE ${name} SUPERUSER LOGIN PASSWORD '${planted.password}'`)),
    () => Effect.promise(() => client.query(`REASSIGN OWNED BY ${name} TO CURRENT_USER; DROP ROLE ${name}`))
  )
  return planted.href
})

layer(Layer.merge(Controlpublish.layerProgram, layerDatabase), { excludeTestServices: true, timeout: 300_000 })(
  "controlpublish serve with its admin API",
  (it) => {
    it.scoped("shows and mends the outbox, and lets nothing slow the pump", () =>
      Effect.gen(function* () {
        const url = yield* plantedUrl
        const {
          feed,
          get,
          post,
          run,
          running,
          url: api
        } = yield* serve({
          DATABASE_URL: url,
          DATABASE_SCHEMA: "mended",
          ADMIN_TOKEN: token
        })
        const seen: Array<string> = []
        const look = (path: string) =>
          Effect.tap(get(path, bearer), ({ text }) => Effect.sync(() => void seen.push(text)))

        const refused = yield* run(["pause", "--reason", "night"], {
          ADMIN_URL: api,
          ADMIN_TOKEN: "a-token-that-is-wrong"
        })
        assert.deepStrictEqual([refused.code, refused.stderr], [1, "controlpublish: The token is wrong\n"])
        const paused = yield* run(["pause", "--reason", "night"], { ADMIN_URL: api, ADMIN_TOKEN: token })
        assert.deepStrictEqual([paused.code, paused.stderr], [0, ""])
        assert.include((yield* look("/api/status")).json.pump, { state: "paused", sink: "file" })

        yield* run(["append", "--type", "a", "--event-id", "poison"])
        assert.strictEqual((yield* post("/api/events/poison/park", reason)).status, 401)
        assert.strictEqual((yield* post("/api/events/poison/park", reason, bearer)).status, 200)
        const resumed = yield* run(["resume", "--json", "--reason", "day"], { ADMIN_URL: api, ADMIN_TOKEN: token })
        assert.include(["idle", "publishing"], (JSON.parse(resumed.stdout) as { readonly state: string }).state)
        yield* run(["append", "--type", "a", "--event-id", "good"])
        yield* until(feed, (feed) => feed.includes("good.json"))
        assert.include((yield* look("/api/events/poison")).json, { state: "parked" })
        assert.strictEqual((yield* post("/api/redrive", { filter: {}, ...reason }, bearer)).json.affected, 1)
        yield* until(feed, (feed) => feed.includes("poison.json"))
        const audit = (yield* look("/api/audit?changesOnly=true")).json.entries as ReadonlyArray<
          Record<string, unknown>
        >
        assert.deepStrictEqual(
          audit.map(({ action, reason }) => [action, reason]),
          [
            ["redrive", "a test"],
            ["resume", "day"],
            ["park", "a test"],
            ["pause", "night"]
          ]
        )

        // A query that waits for a lock is given up, and the pump works on.
        const blocker = yield* rawClient
        yield* Effect.promise(() => blocker.query("BEGIN; LOCK TABLE mended.control_events_audit"))
        const blocked = yield* Effect.fork(look("/api/audit"))
        yield* run(["append", "--type", "a", "--event-id", "meanwhile"])
        yield* until(feed, (feed) => feed.includes("meanwhile.json"))
        const { json, status } = yield* blocked
        assert.deepStrictEqual([status, json._tag], [503, "Unavailable"])
        yield* Effect.promise(() => blocker.query("ROLLBACK"))
        assert.strictEqual((yield* look("/api/audit")).status, 200)

        for (const path of ["/metrics", "/openapi.json", "/health/ready", "/api/events"]) yield* look(path)
        const { code, stderr, stdout } = yield* running.stop("SIGTERM")
        assert.strictEqual(code, 0, stderr)
        assert.match(stderr, /Operator action: park/)
        for (const secret of [token, "pl4nted-passw0rd"]) {
          assert.notInclude([...seen, stdout, stderr, paused.stdout, refused.stderr].join("\n"), secret)
        }
      })
    )

    it.scoped("starts beyond this machine only with a token, and not on a port that is taken", () =>
      Effect.gen(function* () {
        const program = yield* Controlpublish.Program
        const cwd = yield* Controlpublish.workingDirectory
        const open = yield* Controlpublish.run(program, ["serve"], { cwd, env: { ADMIN_HOST: "0.0.0.0" } })
        assert.deepStrictEqual([open.code, open.stdout], [1, ""])
        assert.match(open.stderr, /^controlpublish: ADMIN_TOKEN: is missing, while ADMIN_HOST is "0\.0\.0\.0": .*\n$/)
        const odd = { ADMIN_HOST: "0.0.0.0", ADMIN_TOKEN: "pl4nted token" }
        const unusable = yield* Controlpublish.run(program, ["serve"], { cwd, env: odd })
        assert.strictEqual(unusable.code, 1)
        assert.notInclude(unusable.stderr, "pl4nted")
        assert.match(unusable.stderr, /^controlpublish: ADMIN_TOKEN: .*\n$/)

        const { get, port, post, running } = yield* serve({
          FEED_SINK: "nop",
          ADMIN_HOST: "0.0.0.0",
          ADMIN_TOKEN: token
        })
        assert.match(yield* running.printed, /^ {2}admin .*BEYOND THIS MACHINE/m)
        assert.strictEqual((yield* get("/api/status")).status, 401)
        assert.deepInclude((yield* get("/health/ready")).json, {
          ready: true,
          pump: { ok: true, message: "inert: the sink is nop" }
        })
        assert.include((yield* get("/api/status", bearer)).json.pump, { state: "inert" })
        assert.strictEqual((yield* get("/api/events", bearer)).status, 503)
        assert.strictEqual((yield* post("/api/pump/pause", reason, bearer)).status, 503)

        const taken = yield* Controlpublish.run(program, ["serve"], {
          cwd,
          env: { FEED_SINK: "file", ADMIN_PORT: String(port) }
        })
        assert.deepStrictEqual([taken.code, taken.stdout], [1, ""])
        assert.match(
          taken.stderr,
          /^controlpublish: ADMIN_HOST, ADMIN_PORT: cannot listen on .* port \d+: another .*\n$/
        )
        assert.deepStrictEqual(yield* Effect.promise(() => Fs.readdir(cwd)), [], "it had started something")
        assert.strictEqual((yield* running.stop("SIGTERM")).code, 0)

        const nobody = ["pause", "--reason", "x", "--admin-url", `http://127.0.0.1:${port}`]
        const alone = yield* Controlpublish.run(program, nobody, { cwd })
        assert.deepStrictEqual(
          [alone.code, alone.stderr],
          [
            1,
            `controlpublish: No service answers at http://127.0.0.1:${port} (connect ECONNREFUSED 127.0.0.1:${port}): start serve, or set ADMIN_URL\n`
          ]
        )
      })
    )

    it.scoped("is found by the commands of its directory, its database and its schema, and by no others", () =>
      Effect.gen(function* () {
        const { url } = yield* TestDatabase
        const DATABASE_URL = Redacted.value(url)
        const one = yield* serve({ DATABASE_URL, DATABASE_SCHEMA: "one" })
        const { cwd, run } = one
        const two = yield* serve({ DATABASE_URL, DATABASE_SCHEMA: "two", FEED_SINK_FILE_DIR: "second" }, cwd)
        const states = Effect.map(Effect.all([one.get("/api/status"), two.get("/api/status")]), (answers) =>
          answers.map(({ json }) => (json.pump as { readonly state: string }).state)
        )
        const pause = (env: Record<string, string>) => run(["pause", "--reason", "x"], env)
        const status = (...args: ReadonlyArray<string>) => run(["status", ...args], { DATABASE_SCHEMA: "one" })
        const listed = yield* until(status("--json", "--check"), ({ code }) => code === 0)
        assert.deepInclude(JSON.parse(listed.stdout), {
          publishing: { ok: true, message: "1 of 1 pump can publish" }
        })
        assert.match((yield* status()).stdout, new RegExp(`^  \\S+ +${one.running.process.pid} +idle +.*file`, "m"))

        assert.strictEqual((yield* pause({ DATABASE_SCHEMA: "two" })).stderr, "")
        assert.deepStrictEqual(yield* states, ["idle", "paused"])

        // No third service, and none at the default address that would be of this outbox.
        yield* run(["migrate"], { DATABASE_SCHEMA: "three" })
        const none = yield* pause({ DATABASE_SCHEMA: "three" })
        assert.deepStrictEqual([none.code, none.stdout], [1, ""])
        assert.include(none.stderr, `${one.url} (process ${one.running.process.pid}) publishes from `)
        assert.include(none.stderr, 'schema "two": start serve here, or name the service with ADMIN_URL')

        const elsewhere = yield* Controlpublish.run(yield* Controlpublish.Program, ["resume", "--reason", "x"], {
          cwd: yield* Controlpublish.workingDirectory,
          env: { ADMIN_URL: two.url }
        })
        assert.strictEqual(elsewhere.code, 0, elsewhere.stderr)
        assert.match(
          elsewhere.stderr,
          /^controlpublish: the service at \S+ publishes from database "\w+", schema "two"; DATABASE_URL is not set, so this was compared with nothing\n$/
        )
        yield* pause({ DATABASE_SCHEMA: "two" })

        const other = yield* pause({ DATABASE_SCHEMA: "two", ADMIN_URL: one.url })
        assert.deepStrictEqual([other.code, other.stdout], [1, ""])
        assert.match(
          other.stderr,
          /publishes from another outbox \(database ".*", schema "one"\) than this command uses/
        )
        assert.deepStrictEqual(yield* states, ["idle", "paused"])

        // The same database under another name is the same.
        const alias = new URL(DATABASE_URL)
        alias.hostname = alias.hostname === "localhost" ? "127.0.0.1" : "localhost"
        const known = yield* pause({ DATABASE_URL: alias.href, DATABASE_SCHEMA: "one", ADMIN_URL: one.url })
        assert.strictEqual(known.stderr, "")
        assert.deepStrictEqual(yield* states, ["paused", "paused"])

        const services = Effect.promise(() =>
          Fs.readdir(Path.join(cwd, ".controlpublish", "services")).catch((): Array<string> => [])
        )
        assert.lengthOf(yield* services, 2)
        yield* two.running.stop("SIGKILL")
        const dead = yield* pause({ DATABASE_SCHEMA: "two" })
        assert.deepStrictEqual([dead.code, dead.stderr.includes(two.url)], [1, false], dead.stderr)
        assert.lengthOf(yield* services, 1)
        assert.strictEqual((yield* one.running.stop("SIGTERM")).code, 0)
        assert.notInclude(yield* Effect.promise(() => Fs.readdir(cwd)), ".controlpublish")
        const idle = yield* status("--check")
        assert.match(idle.stdout, /^publishes NO PUMP RUNS: nothing is published until one does/m)
        assert.strictEqual(idle.code, 5)
        assert.strictEqual((yield* status()).code, 0)
        const embedded = yield* Controlpublish.run(yield* Controlpublish.Program, ["resume", "--reason", "x"], { cwd })
        assert.match(
          embedded.stderr,
          /^controlpublish: no service of this directory publishes from embedded PostgreSQL in .*: start serve here, or name/
        )
        assert.notInclude(yield* Effect.promise(() => Fs.readdir(cwd)), ".controlpublish")
      })
    )

    it.scoped("stays up without its database, tells so, and can be stopped", () =>
      Effect.gen(function* () {
        const directory = Path.join(yield* Controlpublish.workingDirectory, "database")
        const database = yield* EmbeddedPostgres.start({ directory })
        const { get, run, running, url } = yield* serve({ DATABASE_URL: Redacted.value(database.url) })
        yield* run(["append", "--type", "a", "--event-id", "before"])
        const published = (json: Readonly<Record<string, unknown>>) =>
          (json.pump as { readonly published: number }).published
        // The outbox may be a second older than the pump's count.
        const known = yield* until(
          get("/api/status"),
          ({ json }) => published(json) === 1 && JSON.stringify(json.outbox).includes(`"pending":{"value":0`)
        )
        assert.strictEqual((yield* get("/health/ready")).status, 200)

        const pidFile = yield* Effect.promise(() =>
          Fs.readFile(Path.join(directory, "postgres", "postmaster.pid"), "utf8")
        )
        process.kill(Number.parseInt(pidFile, 10), "SIGKILL")
        const { json } = yield* until(get("/health/ready"), ({ status }) => status === 503)
        assert.deepInclude(json, { _tag: "NotReady", ready: false })
        assert.deepInclude(json.database, { ok: false })
        assert.deepInclude(json.sink, { ok: true })
        assert.strictEqual((yield* get("/health/live")).status, 200)
        const gone = yield* get("/api/status")
        assert.strictEqual(gone.status, 200)
        assert.deepStrictEqual(gone.json.outbox, known.json.outbox)
        const events = yield* get("/api/events")
        assert.deepStrictEqual([events.status, events.json._tag], [503, "Unavailable"])
        const paused = yield* run(["pause", "--reason", "x"], { ADMIN_URL: url })
        assert.strictEqual(paused.code, 1)
        assert.match(paused.stderr, /^controlpublish: Could not .*\n$/)
        assert.strictEqual((yield* running.stop("SIGTERM")).code, 0)
      })
    )

    it.scoped("is not ready while the broker is gone or it stops, and its streams end well", () =>
      Effect.gen(function* () {
        const { url } = yield* TestDatabase
        // A broker that takes connections and says nothing: each publish is in flight for seconds.
        const broker = yield* Effect.acquireRelease(
          Effect.promise(
            () =>
              new Promise<Net.Server>((resolve) => {
                const server = Net.createServer((socket) => socket.on("error", () => {}))
                server.listen(0, "127.0.0.1", () => resolve(server))
              })
          ),
          (server) => Effect.sync(() => server.close())
        )
        const { get, port, run, running } = yield* serve({
          DATABASE_URL: Redacted.value(url),
          DATABASE_SCHEMA: "stopped",
          FEED_SINK: "jetstream",
          NATS_URL: `nats://127.0.0.1:${(broker.address() as Net.AddressInfo).port}`
        })
        // Nothing is to be published yet, and it is known all the same.
        const { json } = yield* until(get("/health/ready"), ({ status }) => status === 503)
        assert.deepInclude(json.sink, { ok: false })
        assert.deepInclude(json.database, { ok: true })

        yield* run(["append", "--type", "a"])
        const stream = yield* Http.open(port, "/api/stream")
        const client = yield* rawClient
        const inFlight = Effect.promise(async () => {
          const { rowCount } = await client.query(
            `SELECT FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'`
          )
          return (rowCount ?? 0) > 0
        })
        yield* until(inFlight, (inFlight) => !inFlight)
        yield* until(inFlight, (inFlight) => inFlight)
        running.process.kill("SIGTERM")
        const stopping = yield* until(get("/health/ready"), ({ json }) =>
          JSON.stringify(json.pump).includes("stopping")
        )
        assert.strictEqual(stopping.status, 503)
        assert.strictEqual((yield* get("/health/live")).status, 200)
        assert.isTrue(yield* stream.end, "the stream was cut")
        assert.match(stream.text(), /"state":"stopping"/)
        const { code, stdout } = yield* running.end
        assert.strictEqual(code, 0)
        assert.match(stdout, /Stopping: finishing the publishes in flight\.\nStopped\.\n$/)
      })
    )
  }
)
