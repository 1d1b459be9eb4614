import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, LogLevel, Option, Redacted } from "effect"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { inspect } from "node:util"
import { PumpConfig } from "../../src/index.js"
import { JetStreamSink } from "../../src/jetstream/index.js"
import * as ServiceConfig from "../../src/cli/ServiceConfig.js"

const given = (environment: Record<string, string>, flags: ServiceConfig.Flags = {}) => {
  const provider = ConfigProvider.fromMap(new Map(Object.entries(environment)))
  return <A, E>(setting: Effect.Effect<A, E>) =>
    setting.pipe(ServiceConfig.withFlags(flags), Effect.withConfigProvider(provider))
}

const messageOf = <A>(setting: Effect.Effect<A, ServiceConfig.InvalidSetting>, environment: Record<string, string>) =>
  Effect.map(Effect.flip(given(environment)(setting)), ({ message }) => message)

const millis = ({ drainTimeout, pollPeriod, publishTimeout }: ServiceConfig.Pump) =>
  [pollPeriod, publishTimeout, drainTimeout].map((duration) => Duration.toMillis(duration))

describe("ServiceConfig", () => {
  it.effect("has defaults, those of the pump being its own", () =>
    Effect.gen(function* () {
      const nothing = given({})
      assert.deepStrictEqual(yield* nothing(ServiceConfig.database), { url: undefined, schema: "public" })
      assert.deepStrictEqual(yield* nothing(ServiceConfig.sink), { _tag: "nop" })
      assert.strictEqual(yield* nothing(ServiceConfig.logLevel), LogLevel.Info)
      const { batchSize, concurrency, drainTimeout, pollPeriod, publishTimeout } = PumpConfig.defaults
      assert.deepStrictEqual(yield* nothing(ServiceConfig.pump), {
        batchSize,
        concurrency,
        pollPeriod,
        publishTimeout,
        drainTimeout
      })
      assert.deepStrictEqual(yield* given({ FEED_SINK: "file" })(ServiceConfig.sink), {
        _tag: "file",
        directory: "feed"
      })
    })
  )

  it.effect("reads the environment", () =>
    Effect.gen(function* () {
      const environment = given({
        DATABASE_URL: "postgres://u:p%23@h:5433/d?sslmode=disable",
        DATABASE_SCHEMA: "outbox",
        FEED_SINK: "file",
        FEED_SINK_FILE_DIR: "there",
        FEED_SINK_BATCH_SIZE: "7",
        FEED_POLL_PERIOD: "500ms",
        PUMP_CONCURRENCY: "64",
        PUMP_PUBLISH_TIMEOUT: "2 seconds",
        PUMP_DRAIN_TIMEOUT: "1.5 m",
        LOG_LEVEL: "Debug"
      })
      const { schema, url } = yield* environment(ServiceConfig.database)
      assert.strictEqual(Redacted.value(url!), "postgres://u:p%23@h:5433/d?sslmode=disable")
      assert.strictEqual(schema, "outbox")
      assert.deepStrictEqual(yield* environment(ServiceConfig.sink), { _tag: "file", directory: "there" })
      const pump = yield* environment(ServiceConfig.pump)
      assert.strictEqual(pump.batchSize, 7)
      assert.strictEqual(pump.concurrency, 64)
      assert.deepStrictEqual(millis(pump), [500, 2_000, 90_000])
      assert.strictEqual(yield* environment(ServiceConfig.logLevel), LogLevel.Debug)
    })
  )

  it.effect("takes flags before the environment, and what is empty for not given", () =>
    Effect.gen(function* () {
      const environment = { DATABASE_SCHEMA: "a", FEED_SINK: "file", FEED_SINK_FILE_DIR: "", PUMP_CONCURRENCY: "" }
      const flags = {
        databaseUrl: Option.some(Redacted.make("postgres://h/d")),
        databaseSchema: Option.some("b"),
        sink: Option.some(""),
        batchSize: Option.none()
      }
      const both = given(environment, flags)
      const { schema, url } = yield* both(ServiceConfig.database)
      assert.strictEqual(schema, "b")
      assert.strictEqual(Redacted.value(url!), "postgres://h/d")
      assert.deepStrictEqual(yield* both(ServiceConfig.sink), { _tag: "file", directory: "feed" })
      assert.strictEqual((yield* both(ServiceConfig.pump)).concurrency, PumpConfig.defaults.concurrency)
    })
  )

  it.effect("reads what a node is told", () =>
    Effect.gen(function* () {
      const nothing = given({})
      assert.deepStrictEqual(yield* nothing(ServiceConfig.source), { _tag: "nop" })
      assert.deepStrictEqual(yield* nothing(ServiceConfig.apply), {
        artifactDirectory: "artifacts",
        tables: new Set<string>(),
        cannotApply: "halt"
      })
      assert.deepStrictEqual(yield* given({ FEED_SOURCE: "file" })(ServiceConfig.source), {
        _tag: "file",
        directory: "feed"
      })
      const flags = { sourceFileDir: Option.some("there"), cannotApply: Option.some("set-aside") }
      const environment = { FEED_SOURCE: "file", FEED_SOURCE_FILE_DIR: "here", APPLY_TABLES: "public.a , other.b" }
      const both = given({ ...environment, ARTIFACT_DIR: "kept" }, flags)
      assert.deepStrictEqual(yield* both(ServiceConfig.source), { _tag: "file", directory: "there" })
      assert.deepStrictEqual(yield* both(ServiceConfig.apply), {
        artifactDirectory: "kept",
        tables: new Set(["public.a", "other.b"]),
        cannotApply: "setAside"
      })
      // Settings of the sink are none of the source's.
      const jetStream = given({ FEED_SOURCE: "jetstream", NATS_STREAM: "s", NATS_SUBJECT: "a..b" })
      assert.deepStrictEqual(yield* jetStream(ServiceConfig.source), {
        _tag: "jetstream",
        servers: ["nats://127.0.0.1:4222"],
        credentials: undefined,
        tls: undefined,
        stream: "s"
      })
      for (const tables of ["tenants", "public.tenants,", "a.b.c", "public. tenants"]) {
        assert.match(
          yield* messageOf(ServiceConfig.apply, { APPLY_TABLES: tables }),
          /^APPLY_TABLES \(--tables\): got ".*", valid is schema\.table, several with commas between them$/
        )
      }
    })
  )

  it.effect("reads durations with long and with short units", () =>
    Effect.gen(function* () {
      const times = {
        "10 seconds": 10_000,
        "1 minute": 60_000,
        "10s": 10_000,
        "500ms": 500,
        "2h": 7_200_000,
        "1.5s": 1_500
      }
      for (const [text, expected] of Object.entries(times)) {
        const pump = yield* given({ FEED_POLL_PERIOD: text })(ServiceConfig.pump)
        assert.strictEqual(millis(pump)[0], expected, text)
      }
      for (const text of ["10", "s", "-1s", "0s", "Infinity", "10 parsecs", "1e3s", "0.1ms"]) {
        assert.strictEqual(
          yield* messageOf(ServiceConfig.pump, { FEED_POLL_PERIOD: text }),
          `FEED_POLL_PERIOD (--poll-period): got "${text}", valid is a finite time of at least 1 millisecond, e.g. "10 seconds" or "500ms"`
        )
      }
    })
  )

  it.effect("takes integers only as such, and in the range of the pump", () =>
    Effect.gen(function* () {
      for (const text of ["0", "65", "1.5", "1e1", "0x10", "-1", "four", "NaN"]) {
        assert.strictEqual(
          yield* messageOf(ServiceConfig.pump, { PUMP_CONCURRENCY: text }),
          `PUMP_CONCURRENCY (--concurrency): got "${text}", valid is an integer from 1 to 64`
        )
      }
    })
  )

  it.effect("keeps published events for 7 days, another time, a number of them, or all", () =>
    Effect.gen(function* () {
      for (const [text, keep] of [
        ["", { _tag: "Age", age: Duration.days(7) }],
        ["36h", { _tag: "Age", age: Duration.hours(36) }],
        ["2 weeks", { _tag: "Age", age: Duration.weeks(2) }],
        ["1000000 events", { _tag: "Count", count: 1_000_000 }],
        ["1 event", { _tag: "Count", count: 1 }],
        ["off", "all"]
      ] as const) {
        assert.deepStrictEqual(yield* given({ RETENTION: text })(ServiceConfig.retention), keep, text)
      }
      for (const text of ["7", "0 events", "-1 events", "0 days", "never", "Infinity", "1e3 events"]) {
        assert.strictEqual(
          yield* messageOf(ServiceConfig.retention, { RETENTION: text }),
          `RETENTION (--retention): got "${text}", valid is a time ("7 days", 12h), a number of events ("1000000 events"), or off`
        )
      }
    })
  )

  it.effect("exports telemetry only where a variable of OpenTelemetry asks for it", () =>
    Effect.gen(function* () {
      const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:4318" }
      for (const [environment, traces, metrics] of [
        [{}, false, false],
        [endpoint, true, true],
        [{ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "https://there/v1/traces" }, true, false],
        [{ OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: "https://there/v1/metrics" }, false, true],
        [{ OTEL_TRACES_EXPORTER: "otlp" }, true, false],
        [{ ...endpoint, OTEL_TRACES_EXPORTER: "none" }, false, true],
        [{ ...endpoint, OTEL_METRICS_EXPORTER: "none" }, true, false],
        [{ ...endpoint, OTEL_SDK_DISABLED: "true" }, false, false]
      ] as const) {
        const found = yield* given(environment)(ServiceConfig.telemetry)
        assert.deepStrictEqual([found.traces, found.metrics], [traces, metrics], JSON.stringify(environment))
      }
    })
  )

  it.effect("refuses of OpenTelemetry's variables what its SDK would replace without a word", () =>
    Effect.gen(function* () {
      for (const [name, value] of [
        ["OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"],
        ["OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"],
        ["OTEL_TRACES_SAMPLER", "sometimes"],
        ["OTEL_METRICS_EXPORTER", "prometheus"],
        ["OTEL_METRIC_EXPORT_INTERVAL", "1s"],
        ["OTEL_SDK_DISABLED", "perhaps"]
      ] as const) {
        const message = yield* messageOf(ServiceConfig.telemetry, { [name]: value })
        assert.match(message, new RegExp(`^${name}: got "${value}", valid is `))
      }
      const message = yield* messageOf(ServiceConfig.logFormat, { LOG_FORMAT: "xml" })
      assert.strictEqual(message, 'LOG_FORMAT: got "xml", valid is one of json, logfmt, pretty')
    })
  )

  it.effect("accepts what the driver accepts as a URL", () =>
    Effect.gen(function* () {
      const urls = [
        "postgres://h",
        "postgresql://u:p@h/d",
        "postgres://u:p@[::1]:5432/d",
        "postgres://u:p@/d?host=/var/run/postgresql",
        "postgres:///d",
        "postgres://u:p%40%2F@h/d"
      ]
      for (const url of urls) yield* given({ DATABASE_URL: url })(ServiceConfig.database)
    })
  )

  it.effect("never repeats a URL that it refuses", () =>
    Effect.gen(function* () {
      const urls = [
        "s3cret",
        "mysql://u:s3cret@h/d",
        "postgres://u:s3cret/x@h/d",
        "postgres://u:12/s3cret@h/d",
        "postgres://u:12#s3cret@h/d",
        "postgres://u:12?s3cret@h/d",
        "postgres://u:p@s3cret/x@h/d",
        "postgres://u:p@s3cret#x@h/d",
        "postgres://u:p@s3cret?x@h/d",
        "postgres://u:p@s3cret#x",
        "postgres://u:s3cret@h:port/d",
        "postgres://u:s3cret@h/d?sslrootcert=/nowhere"
      ]
      for (const url of urls) {
        const message = yield* messageOf(ServiceConfig.database, { DATABASE_URL: url })
        assert.match(message, /^DATABASE_URL \(--database-url\): (got|cannot be used)/, url)
        assert.notInclude(message, "s3cret")
      }
    })
  )

  it.effect("shows what was given in one line, without the password of a URL that got to the wrong place", () =>
    Effect.gen(function* () {
      const message = yield* messageOf(ServiceConfig.sink, {
        FEED_SINK: `postgres://u:s3/cret@h/d\n\u001b[31m${"x".repeat(500)}`
      })
      assert.match(message, /^FEED_SINK \(--sink\): got "postgres:\/\/\*\*\*@h\/d �\[31mx+…", valid is nop, file/)
      assert.isBelow(message.length, 250)
      const schema = yield* messageOf(ServiceConfig.schema, { DATABASE_SCHEMA: "ä".repeat(32) })
      assert.match(schema, /^DATABASE_SCHEMA \(--database-schema\): got "ä+", valid is a name of at most 63 bytes$/)
    })
  )

  describe("of the sink jetstream", () => {
    const jetStream = (environment: Record<string, string>) =>
      Effect.map(given({ FEED_SINK: "jetstream", ...environment })(ServiceConfig.sink), (sink) => {
        if (sink._tag !== "jetstream") throw new Error(sink._tag)
        return sink
      })

    const refused = (environment: Record<string, string>) =>
      messageOf(ServiceConfig.sink, { FEED_SINK: "jetstream", ...environment })

    const file = (name: string, contents: string) =>
      Effect.acquireRelease(
        Effect.promise(async () => {
          const directory = await mkdtemp(join(tmpdir(), "controlpublish-config-"))
          await writeFile(join(directory, name), contents)
          return { directory, path: join(directory, name) }
        }),
        ({ directory }) => Effect.promise(() => rm(directory, { recursive: true }))
      )

    it.effect("has defaults, those of the sink being its own", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* jetStream({}), {
          _tag: "jetstream",
          servers: ["nats://127.0.0.1:4222"],
          credentials: undefined,
          tls: undefined,
          stream: "control-events",
          ...JetStreamSink.defaults
        })
      })
    )

    it.effect("reads the environment", () =>
      Effect.gen(function* () {
        const sink = yield* jetStream({
          NATS_URL: "nats://a, tls://b:4333",
          NATS_STREAM: "s",
          NATS_SUBJECT: "x.{tenant_id}",
          NATS_MANAGE_STREAM: "TRUE",
          NATS_MIN_DUPLICATE_WINDOW: "5m",
          NATS_DEDUPLICATION: "subject"
        })
        assert.deepStrictEqual(sink.servers, ["nats://a:4222", "tls://b:4333"])
        assert.deepStrictEqual(
          [sink.stream, sink.subject, sink.manageStream, sink.deduplication],
          ["s", "x.{tenant_id}", true, "subject"]
        )
        assert.strictEqual(Duration.toMillis(sink.minDuplicateWindow!), 300_000)
      })
    )

    it.effect("takes credentials from the URL or beside it, and shows none", () =>
      Effect.gen(function* () {
        const creds = yield* file("user.creds", "s3cret creds")
        const cases: ReadonlyArray<readonly [Record<string, string>, unknown]> = [
          [{ NATS_URL: "nats://u:s3%40cret@h" }, { _tag: "password", user: "u", password: "s3@cret" }],
          [{ NATS_URL: "nats://s3cret@h" }, { _tag: "token", token: "s3cret" }],
          [{ NATS_TOKEN: "s3cret" }, { _tag: "token", token: "s3cret" }],
          [
            { NATS_USER: "u", NATS_PASSWORD: "s3cret" },
            { _tag: "password", user: "u", password: "s3cret" }
          ],
          [{ NATS_CREDS_FILE: creds.path }, { _tag: "creds", creds: "s3cret creds" }],
          [
            { NATS_URL: "nats://u:other@h", NATS_TOKEN: "s3cret" },
            { _tag: "token", token: "s3cret" }
          ]
        ]
        for (const [environment, expected] of cases) {
          const sink = yield* jetStream(environment)
          const shown = Object.entries(sink.credentials!).map(([name, value]: [string, unknown]) => [
            name,
            Redacted.isRedacted(value) ? Redacted.value(value) : value
          ])
          assert.deepStrictEqual(Object.fromEntries(shown), expected)
          assert.notMatch(JSON.stringify(sink) + inspect(sink, { depth: 9 }), /s3(@|%40)?cret/)
        }
      }).pipe(Effect.scoped)
    )

    it.effect("refuses what cannot be, and names the setting", () =>
      Effect.gen(function* () {
        const { directory, path } = yield* file("ca.pem", "x")
        const nowhere = join(directory, "nowhere")
        const cases: ReadonlyArray<readonly [Record<string, string>, RegExp]> = [
          [{ NATS_USER: "u" }, /^NATS_PASSWORD: is missing, while NATS_USER is set$/],
          [{ NATS_PASSWORD: "p" }, /^NATS_USER: is missing, while NATS_PASSWORD is set$/],
          [{ NATS_TOKEN: "t", NATS_USER: "u", NATS_PASSWORD: "p" }, /^NATS_USER: is set and so is NATS_TOKEN/],
          [{ NATS_CREDS_FILE: nowhere }, /^NATS_CREDS_FILE: cannot read ".*nowhere"/],
          [{ NATS_TLS_CA_FILE: nowhere }, /^NATS_TLS_CA_FILE: cannot read ".*nowhere"/],
          [{ NATS_TLS_CERT_FILE: path }, /^NATS_TLS_KEY_FILE: is missing, while NATS_TLS_CERT_FILE is set$/],
          [{ NATS_TLS_KEY_FILE: path }, /^NATS_TLS_CERT_FILE: is missing, while NATS_TLS_KEY_FILE is set$/],
          [{ NATS_STREAM: "a b" }, /^NATS_STREAM \(--nats-stream\): got "a b"/],
          [{ NATS_SUBJECT: "a..b" }, /^NATS_SUBJECT \(--nats-subject\): got "a..b"/],
          [
            { NATS_MANAGE_STREAM: "1" },
            /^NATS_MANAGE_STREAM \(--nats-manage-stream\): got "1", valid is true or false$/
          ],
          [
            { NATS_MIN_DUPLICATE_WINDOW: "1ms" },
            /^NATS_MIN_DUPLICATE_WINDOW \(--nats-min-duplicate-window\): .* at least 100 milliseconds/
          ],
          [{ NATS_DEDUPLICATION: "none" }, /^NATS_DEDUPLICATION \(--nats-deduplication\): got "none"/]
        ]
        for (const [environment, expected] of cases) assert.match(yield* refused(environment), expected)
      }).pipe(Effect.scoped)
    )

    it.effect("never repeats an address that it refuses", () =>
      Effect.gen(function* () {
        for (const url of ["http://u:s3cret@h", "nats://u:s3/cret@h", "nats://u:s3cret@h:port", "nats://a,://s3cret"]) {
          const message = yield* refused({ NATS_URL: url })
          assert.match(message, /^NATS_URL \(--nats-url\): /, url)
          assert.notMatch(message, /s3\/?cret/)
        }
      })
    )

    it.effect("is not looked at for another sink", () =>
      Effect.gen(function* () {
        for (const sink of ["nop", "file"]) {
          yield* given({ FEED_SINK: sink, NATS_URL: "http://x", NATS_TOKEN: "t", NATS_USER: "u" })(ServiceConfig.sink)
        }
      })
    )
  })
})
