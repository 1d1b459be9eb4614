import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import * as Pg from "pg"
import { vi } from "vitest"
import * as Nats from "../support/nats.js"
import { layerDatabase, TestDatabase } from "../support/postgres.js"
import { eventually } from "../support/pump.js"
import { openValve } from "../support/valve.js"
import { collector } from "./support/collector.js"
import * as Controlpublish from "./support/controlpublish.js"

vi.setConfig({ testTimeout: 90_000 })

let schemas = 0

/** `controlpublish` with a feed in files, on a schema of its own. */
const command = (env: Record<string, string>) =>
  Effect.gen(function* () {
    const program = yield* Controlpublish.Program
    const cwd = yield* Controlpublish.workingDirectory
    const options = {
      cwd,
      env: {
        DATABASE_URL: Redacted.value((yield* TestDatabase).url),
        DATABASE_SCHEMA: `telemetry_${++schemas}`,
        FEED_SINK: "file",
        ADMIN_PORT: "off",
        ...env
      }
    }
    return {
      schema: options.env.DATABASE_SCHEMA,
      serve: Effect.tap(Controlpublish.start(program, ["serve"], options), ({ waitFor }) =>
        waitFor(/Stop with Ctrl-C/)
      ),
      append: (...args: ReadonlyArray<string>) => Controlpublish.run(program, ["append", ...args], options),
      appendLines: (lines: string) => Controlpublish.run(program, ["append", "-"], { ...options, input: lines })
    }
  })

interface Line {
  readonly message: unknown
  readonly logLevel: string
  readonly timestamp: string
  readonly cause?: string
  readonly annotations: Record<string, unknown>
}

const parseLines = (stderr: string): ReadonlyArray<Line> =>
  stderr
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Line)

const query = (url: string, ...statements: ReadonlyArray<string>) =>
  Effect.promise(async () => {
    const client = new Pg.Client({ connectionString: url })
    await client.connect()
    try {
      for (const statement of statements) await client.query(statement)
    } finally {
      await client.end()
    }
  })

/** Where a `serve` that printed this answers. */
const addressOf = (printed: string): string => /^ {2}admin +(http:\/\/\S+)/m.exec(printed)![1]!

const get = (url: string, init: RequestInit = {}) =>
  Effect.promise(async () => {
    const response = await fetch(url, init)
    return { headers: response.headers, status: response.status, text: await response.text() }
  })

layer(Layer.merge(Controlpublish.layerProgram, layerDatabase), { excludeTestServices: true, timeout: 300_000 })(
  "telemetry of the service",
  (it) => {
    it.scoped("has append and publish in one trace, by the standard variables", () =>
      Effect.gen(function* () {
        const { spans, metrics, requests, url } = yield* collector
        const { append, serve } = yield* command({
          OTEL_EXPORTER_OTLP_ENDPOINT: `${url}/`,
          OTEL_EXPORTER_OTLP_HEADERS: "x-api-key=let%20me%20in",
          OTEL_SERVICE_NAME: "outbox-of-the-test",
          OTEL_RESOURCE_ATTRIBUTES: "deployment.environment.name=night",
          OTEL_BSP_SCHEDULE_DELAY: "50",
          OTEL_METRIC_EXPORT_INTERVAL: "200",
          ADMIN_PORT: "0"
        })
        const running = yield* serve
        for (const tenant of ["t1", "t2"]) {
          const { code, stderr } = yield* append("--type", "tenant.created", "--tenant", tenant)
          assert.strictEqual(code, 0, stderr)
        }
        const named = (name: string) => spans().filter((span) => span.name === name)
        yield* eventually(
          "the spans of both publishes",
          Effect.sync(() => named("Pump.publish").length === 2)
        )
        const appends = named("Outbox.append")
        assert.strictEqual(new Set(appends.map(({ traceId }) => traceId)).size, 2)
        for (const published of named("Pump.publish")) {
          const appended = appends.find(({ traceId }) => traceId === published.traceId)
          assert.strictEqual(published.parentSpanId, appended?.spanId)
          assert.deepInclude(published.attributes, { "controlpublish.sink": "file" })
        }
        assert.deepInclude(named("Pump.publish")[0]!.resource, {
          "service.name": "outbox-of-the-test",
          "deployment.environment.name": "night"
        })
        for (const { headers } of requests()) assert.strictEqual(headers["x-api-key"], "let me in")
        yield* eventually(
          "metrics",
          Effect.sync(() =>
            ["published_total", "backlog_pending", "publish_duration_seconds"].every((name) =>
              metrics().has(`controlpublish_${name}`)
            )
          )
        )
        // The backlog is exported before anybody asks for it.
        const scraped = yield* get(`${addressOf(yield* running.printed)}/metrics`)
        assert.strictEqual(scraped.headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8")
        for (const line of [
          "controlpublish_published_total 2",
          "controlpublish_backlog_pending 0",
          'controlpublish_healthy{part="database"} 1',
          'target_info{service_name="controlpublish"'
        ]) {
          assert.include(scraped.text, `\n${line}`)
        }
        const { code, stderr } = yield* running.stop("SIGTERM")
        assert.deepStrictEqual([code, stderr], [0, ""])
      })
    )

    it.scoped("exports nothing that was not asked for", () =>
      Effect.gen(function* () {
        const { requests, url } = yield* collector
        yield* Effect.forEach(
          [{ OTEL_SDK_DISABLED: "true" }, { OTEL_TRACES_SAMPLER: "always_off", OTEL_METRICS_EXPORTER: "none" }],
          (env) =>
            Effect.gen(function* () {
              const { append, serve } = yield* command({ OTEL_EXPORTER_OTLP_ENDPOINT: url, LOG_LEVEL: "debug", ...env })
              const running = yield* serve
              assert.strictEqual((yield* append("--type", "a")).code, 0)
              yield* running.waitFor(/Published a control event/)
              assert.strictEqual((yield* running.stop("SIGTERM")).code, 0)
            }),
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(requests(), [])
      })
    )

    it.scoped("publishes while no collector answers, and says so", () =>
      Effect.gen(function* () {
        const port = yield* Effect.promise(Nats.freePort)
        const { append, serve } = yield* command({
          OTEL_EXPORTER_OTLP_ENDPOINT: `http://user:hidden@127.0.0.1:${port}`,
          OTEL_BSP_SCHEDULE_DELAY: "50",
          OTEL_EXPORTER_OTLP_TIMEOUT: "200",
          LOG_FORMAT: "json"
        })
        const running = yield* serve
        yield* append("--type", "a")
        yield* running.waitFor(/Telemetry was not exported/)
        const { code, stderr } = yield* running.stop("SIGTERM")
        assert.strictEqual(code, 0)
        assert.notInclude(stderr, "hidden")
        assert.deepStrictEqual(
          parseLines(stderr).map(({ annotations, logLevel }) => [annotations.module, logLevel]),
          [["Telemetry", "WARN"]],
          "once a minute"
        )
      })
    )

    it.scoped("logs JSON with id, key and version of an event", () =>
      Effect.gen(function* () {
        const { append, serve } = yield* command({ LOG_FORMAT: "json", LOG_LEVEL: "debug" })
        const running = yield* serve
        yield* append("--type", "tenant.created", "--tenant", "t1", "--event-id", "e1")
        yield* running.waitFor(/Published a control event/)
        const { stderr } = yield* running.stop("SIGTERM")
        const line = parseLines(stderr).find(({ message }) => message === "Published a control event")
        assert.strictEqual(line?.logLevel, "DEBUG")
        assert.closeTo(Date.parse(line!.timestamp), Date.now(), 60_000)
        assert.deepStrictEqual(line!.annotations, {
          package: "controlpublish",
          module: "Pump",
          sink: "file",
          event_id: "e1",
          ordering_key: "t1",
          control_version: 1
        })
      })
    )

    it.scoped.skipIf(!Nats.available())("has no payload and no secret in logs, spans and errors", () =>
      Effect.gen(function* () {
        const secrets = {
          database: "planted-database-password",
          nats: "planted-nats-token",
          admin: "planted-admin-token",
          collector: "planted-collector-key",
          payload: "planted-payload"
        }
        const { requests, spans, url: endpoint } = yield* collector
        const broker = yield* Nats.nats({
          config: () => `authorization { token: "${secrets.nats}" }\nmax_payload: 32768`
        })
        const url = new URL(Redacted.value((yield* TestDatabase).url))
        const role = `planted_${process.pid}`
        yield* Effect.acquireRelease(
          query(
            url.href,
            `CREATE ROLE ${role} LOGIN PASSWORD '${secrets.database}'`,
            `GRANT ALL ON DATABASE ${url.pathname.slice(1)} TO ${role}`
          ),
          () => query(url.href, `DROP OWNED BY ${role} CASCADE`, `DROP ROLE ${role}`)
        )
        let databasePort = Number(url.port || 5432)
        const valve = yield* Effect.acquireRelease(
          Effect.promise(() => openValve(() => databasePort)),
          (valve) => Effect.sync(() => valve.close())
        )
        const planted = new URL(url)
        planted.username = role
        planted.password = secrets.database
        planted.port = String(valve.port)
        const { append, appendLines, schema, serve } = yield* command({
          DATABASE_URL: planted.href,
          FEED_SINK: "jetstream",
          NATS_URL: broker.url,
          NATS_TOKEN: secrets.nats,
          NATS_MANAGE_STREAM: "true",
          ADMIN_TOKEN: secrets.admin,
          ADMIN_PORT: "0",
          FEED_POLL_PERIOD: "100ms",
          LOG_LEVEL: "trace",
          LOG_FORMAT: "json",
          OTEL_EXPORTER_OTLP_ENDPOINT: endpoint,
          OTEL_EXPORTER_OTLP_HEADERS: `x-api-key=${secrets.collector}`,
          OTEL_BSP_SCHEDULE_DELAY: "50"
        })
        const printed: Array<string> = []
        const keep = <A extends Controlpublish.Result>(result: A) => {
          printed.push(result.stdout, result.stderr)
          return result
        }
        const running = yield* serve
        const outbox = `${schema}.control_events_outbox`
        const event = (id: string, fields: object = {}) =>
          JSON.stringify({ event_id: id, type: "a", tenant_id: id, note: secrets.payload, ...fields })

        // Published, too large for the broker, and rows that break the contract with what they hold.
        keep(yield* appendLines(`${event("fine")}\n${event("large", { more: secrets.payload.repeat(3_000) })}`))
        const rows = [
          event("checksum", { checksum: secrets.payload, artifact_ref: secrets.payload }),
          event("type", { type: [secrets.payload] }),
          JSON.stringify(secrets.payload)
        ].map(
          (payload, index) =>
            `INSERT INTO ${outbox} (event_id, event_type, payload_json, ordering_key) VALUES ('bad-${index}', 'a', '${payload}', '')`
        )
        yield* query(url.href, ...rows)
        const said = (pattern: RegExp, what: string) =>
          eventually(
            what,
            Effect.map(running.logged, (text) => pattern.test(text))
          )
        for (const id of ["fine", "large", "bad-0", "bad-1", "bad-2"]) {
          yield* said(new RegExp(`"event_id":"${id}"`), `a line about ${id}`)
        }

        yield* Effect.promise(() => broker.kill())
        keep(yield* appendLines(event("meanwhile")))
        yield* said(/cannot publish[^\n]*SinkUnavailable/, "an outage of the broker")
        yield* Effect.promise(() => broker.start())
        yield* said(/"event_id":"meanwhile"/, "the end of the outage")

        databasePort = 1
        valve.cut()
        yield* said(/cannot publish[^\n]*OutboxError/, "an outage of the database")
        keep(yield* appendLines(event("lost")))
        keep(yield* append("--type", "a", "--tenant", "t"))
        databasePort = Number(url.port || 5432)

        const address = addressOf(yield* running.printed)
        for (const token of [secrets.admin, `${secrets.admin}-wrong`]) {
          for (const path of ["/api/pump/resume", "/api/events/bad-0/discard", "/api/redrive"]) {
            yield* get(`${address}${path}`, {
              method: "POST",
              headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
              body: JSON.stringify({ filter: {}, reason: "mended" })
            })
          }
          printed.push((yield* get(`${address}/api/status?token=${token}`)).text)
        }
        printed.push((yield* get(`${address}/metrics`)).text)

        // Errors of the command line.
        keep(yield* appendLines(`{"type":"a","note":"${secrets.payload}`))
        keep(yield* appendLines(event("x", { checksum: secrets.payload })))

        keep(yield* running.stop("SIGTERM"))
        assert.isAbove(spans().filter(({ name }) => name === "Pump.publish").length, 2)
        const everything = [...printed, ...requests().map(({ body }) => body.toString("latin1"))].join("\n")
        assert.include(everything, "Published a control event")
        for (const [name, secret] of Object.entries(secrets)) {
          const at = everything.indexOf(secret)
          assert.strictEqual(at, -1, `${name}: …${everything.slice(Math.max(at - 300, 0), at + 100)}`)
        }
      })
    )
  }
)
