import { jetstreamManager, type JetStreamManager } from "@nats-io/jetstream"
import { connect } from "@nats-io/transport-node"
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Layer, Redacted } from "effect"
import * as Pg from "pg"
import { vi } from "vitest"
import * as Nats from "../support/nats.js"
import { layerDatabase, TestDatabase } from "../support/postgres.js"
import * as Controlpublish from "./support/controlpublish.js"

vi.setConfig({ testTimeout: 60_000 })

const stream = "control-events"

let schemas = 0

/** `controlpublish` on a schema of its own, publishing to a server. */
const command = (server: Nats.NatsServer, env: Record<string, string> = {}) =>
  Effect.gen(function* () {
    const program = yield* Controlpublish.Program
    const cwd = yield* Controlpublish.workingDirectory
    const url = Redacted.value((yield* TestDatabase).url)
    const schema = `jetstream_${++schemas}`
    const options = {
      cwd,
      env: {
        DATABASE_URL: url,
        DATABASE_SCHEMA: schema,
        FEED_SINK: "jetstream",
        ADMIN_PORT: "off",
        NATS_URL: server.url,
        FEED_POLL_PERIOD: "100ms",
        LOG_LEVEL: "trace",
        ...env
      }
    }
    return {
      serve: Controlpublish.start(program, ["serve"], options),
      status: (...args: ReadonlyArray<string>) => Controlpublish.run(program, ["status", ...args], options),
      append: (count: number) =>
        Controlpublish.run(program, ["append", "-"], {
          ...options,
          input: Array.from({ length: count }, (_, n) =>
            JSON.stringify({ event_id: `e${n}`, type: "test", tenant_id: `t${n % 3}` })
          ).join("\n")
        }),
      rows: Effect.promise(async () => {
        const client = new Pg.Client({ connectionString: url })
        await client.connect()
        const { rows } = await client
          .query<Row>(
            `SELECT event_id AS id, tenant_id AS tenant, published_control_version::int AS version,
              attempt_count AS attempts, parked_at IS NOT NULL AS parked
            FROM ${schema}.control_events_outbox ORDER BY control_events_outbox.id`
          )
          .finally(() => client.end())
        return rows
      })
    }
  })

interface Row {
  readonly id: string
  readonly tenant: string
  readonly version: number | null
  readonly attempts: number
  readonly parked: boolean
}

const allPublished = (rows: Effect.Effect<ReadonlyArray<Row>>) =>
  Effect.repeat(Effect.delay(rows, "50 millis"), { until: (rows) => rows.every(({ version }) => version !== null) })

const withManager = <A>(
  server: Nats.NatsServer,
  use: (manager: JetStreamManager) => Promise<A>,
  options: { readonly user?: string; readonly pass?: string } = {}
) =>
  Effect.promise(async () => {
    const nc = await connect({ servers: server.url, ...options })
    try {
      return await use(await jetstreamManager(nc))
    } finally {
      await nc.close()
    }
  })

layer(Layer.merge(Controlpublish.layerProgram, layerDatabase), { excludeTestServices: true, timeout: 300_000 })(
  "controlpublish serve to JetStream",
  (it) => {
    it.scoped.skipIf(!Nats.available())("publishes in order, records the sequences, and shows no secret", () =>
      Effect.gen(function* () {
        const [user, pass] = ["someone", "s3cret"]
        const server = yield* Nats.nats({ config: () => `authorization { user: ${user}, password: "${pass}" }` })
        const { append, rows, serve } = yield* command(server, {
          NATS_URL: `nats://${user}:${pass}@127.0.0.1:${server.port}`,
          NATS_MANAGE_STREAM: "true"
        })
        const running = yield* serve
        yield* running.waitFor(/Stop with Ctrl-C/)
        assert.match(yield* running.printed, new RegExp(`the stream ${stream} at ${server.url}`))
        assert.strictEqual((yield* append(60)).code, 0)
        const published = yield* allPublished(rows)
        const ids = yield* withManager(
          server,
          (manager) =>
            Promise.all(
              published.map(async ({ version }) =>
                (await manager.streams.getMessage(stream, { seq: version! }))?.header.get("Nats-Msg-Id")
              )
            ),
          { user, pass }
        )
        assert.deepStrictEqual(
          ids,
          published.map(({ id }) => id)
        )
        for (const tenant of ["t0", "t1", "t2"]) {
          const versions = published.filter((row) => row.tenant === tenant).map(({ version }) => version!)
          assert.deepStrictEqual(
            versions,
            versions.toSorted((one, other) => one - other)
          )
        }
        const { code, stderr, stdout } = yield* running.stop("SIGTERM")
        assert.strictEqual(code, 0, stderr)
        assert.notInclude(stdout + stderr, pass)
      })
    )

    it.scoped.skipIf(!Nats.available())("shows in status and readiness how far a node may fall behind", () =>
      Effect.gen(function* () {
        const server = yield* Nats.nats()
        yield* withManager(server, (manager) =>
          manager.streams.add({ name: stream, subjects: ["control.events.>"], max_msgs: 5, max_age: 600_000_000_000 })
        )
        const { serve, status } = yield* command(server, { ADMIN_PORT: "0" })
        const running = yield* serve
        yield* running.waitFor(/Stop with Ctrl-C/)
        const [, url] = /admin +(http:\S+)/.exec(yield* running.printed) ?? []
        const message = `The stream "${stream}" removes its oldest messages: nodes more than 10m or 5 messages behind cannot catch up`
        const bounds = [{ message, reach: { millis: 600_000, events: 5 } }]
        const json = yield* Effect.repeat(Effect.delay(status("--json"), "100 millis"), {
          until: ({ stdout }) => stdout.includes('"bounds": [\n    {')
        })
        assert.deepInclude(JSON.parse(json.stdout), { bounds })
        assert.include((yield* status()).stdout, `\nbounded   ${message}\n`)
        const ready = yield* Effect.promise(async () => {
          const response = await fetch(`${url!}/health/ready`)
          return { status: response.status, json: (await response.json()) as object }
        })
        assert.strictEqual(ready.status, 200)
        assert.deepInclude(ready.json, { bounds })
      })
    )

    it.scoped.skipIf(!Nats.available())("is listed as stopping while it waits for publishes in flight", () =>
      Effect.gen(function* () {
        const server = yield* Nats.nats()
        yield* withManager(server, (manager) => manager.streams.add({ name: stream, subjects: ["control.events.>"] }))
        const { append, rows, serve, status } = yield* command(server)
        const running = yield* serve
        yield* running.waitFor(/Stop with Ctrl-C/)
        const listed = (state: string) =>
          Effect.repeat(Effect.delay(status(), "100 millis"), {
            until: ({ stdout }) => new RegExp(`^  \\S+ +${running.process.pid} +${state} `, "m").test(stdout)
          })
        yield* listed("idle")
        process.kill(server.pid()!, "SIGSTOP")
        assert.strictEqual((yield* append(3)).code, 0)
        yield* listed("publishing")
        const stopped = yield* Effect.fork(running.stop("SIGTERM"))
        yield* listed("stopping")
        process.kill(server.pid()!, "SIGCONT")
        assert.strictEqual((yield* Fiber.join(stopped)).code, 0)
        assert.isTrue((yield* rows).some(({ version }) => version !== null))
        assert.include((yield* status()).stdout, "NO PUMP RUNS: nothing")
      })
    )

    it.scoped.skipIf(!Nats.available())(
      "says that the stream is missing, and publishes everything once it is there",
      () =>
        Effect.gen(function* () {
          const server = yield* Nats.nats()
          const { append, rows, serve } = yield* command(server)
          const running = yield* serve
          yield* running.waitFor(
            /There is no stream \\?"control-events\\?": create it, or start with NATS_MANAGE_STREAM=true/
          )
          assert.strictEqual((yield* append(10)).code, 0)
          yield* Effect.sleep("1 second")
          assert.deepStrictEqual(
            (yield* rows).map(({ attempts, parked, version }) => ({ attempts, parked, version })),
            Array.from({ length: 10 }, () => ({ attempts: 0, parked: false, version: null }))
          )
          yield* withManager(server, (manager) => manager.streams.add({ name: stream, subjects: ["control.events.>"] }))
          assert.deepStrictEqual(
            (yield* allPublished(rows)).map(({ attempts }) => attempts),
            Array.from({ length: 10 }, () => 1)
          )
          assert.strictEqual((yield* running.stop("SIGTERM")).code, 0)
        })
    )

    it.scoped.skipIf(!Nats.available())("waits for a server that is down at the start", () =>
      Effect.gen(function* () {
        const server = yield* Nats.nats()
        yield* withManager(server, (manager) => manager.streams.add({ name: stream, subjects: ["control.events.>"] }))
        yield* Effect.promise(() => server.kill("SIGTERM"))
        const { append, rows, serve } = yield* command(server)
        const running = yield* serve
        yield* running.waitFor(/Nothing can be published yet\. .*Cannot connect to nats:\/\/127\.0\.0\.1/)
        assert.strictEqual((yield* append(10)).code, 0)
        yield* Effect.promise(() => server.start())
        yield* allPublished(rows)
        assert.strictEqual((yield* running.stop("SIGTERM")).code, 0)
      })
    )
  }
)
