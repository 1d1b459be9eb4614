import { jetstreamManager, type JetStreamManager } from "@nats-io/jetstream"
import { connect } from "@nats-io/transport-node"
import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
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
