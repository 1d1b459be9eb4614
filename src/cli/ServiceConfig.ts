/**
 * The service's settings, from flags and environment variables alike: a flag goes before the variable of its setting,
 * and an empty value counts as none.
 *
 * @since 1.0.0
 */
import * as Options from "@effect/cli/Options"
import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as JetStreamSource from "../jetstream/JetStreamSource.js"
import * as PumpConfig from "../PumpConfig.js"
import * as Retention from "../Retention.js"
import * as JetStreamSink from "../jetstream/JetStreamSink.js"
import type * as AdminServer from "../admin/AdminServer.js"
import * as DatabaseUrl from "./internal/databaseUrl.js"
import { isLoopback } from "../admin/internal/loopback.js"
import * as NatsSettings from "./internal/natsSettings.js"
import { quote } from "./internal/text.js"

/**
 * A setting has a value that cannot be. The message is one line that names the setting, what was given (a secret
 * excepted) and what is valid.
 *
 * @since 1.0.0
 * @category errors
 */
export class InvalidSetting extends Schema.TaggedError<InvalidSetting>("controlpublish/InvalidSetting")(
  "InvalidSetting",
  {
    /** The environment variable. */
    setting: Schema.String,
    message: Schema.String
  }
) {}

/**
 * @since 1.0.0
 * @category models
 */
export interface Database {
  /** Absent: an embedded PostgreSQL, its data kept in the working directory. */
  readonly url: Redacted.Redacted | undefined
  /** The PostgreSQL schema that holds the outbox. */
  readonly schema: string
}

/**
 * @since 1.0.0
 * @category models
 */
export type SinkConfig =
  | { readonly _tag: "nop" }
  | {
      readonly _tag: "file"
      /** Where the feed is kept. */
      readonly directory: string
    }
  | ({ readonly _tag: "jetstream" } & JetStreamSink.Options)

/**
 * @since 1.0.0
 * @category models
 */
export type SourceConfig =
  | { readonly _tag: "nop" }
  | {
      readonly _tag: "file"
      /** Where the feed is kept. */
      readonly directory: string
    }
  | ({ readonly _tag: "jetstream" } & JetStreamSource.Options)

/**
 * What `apply` may do.
 *
 * @since 1.0.0
 * @category models
 */
export interface Apply {
  readonly artifactDirectory: string
  /** The tables that artifacts may change, as `schema.table`. */
  readonly tables: ReadonlySet<string>
  readonly cannotApply: "halt" | "setAside"
}

/**
 * The settings of the pump that the service has.
 *
 * @since 1.0.0
 * @category models
 */
export type Pump = Pick<
  PumpConfig.PumpConfig["Type"],
  "batchSize" | "concurrency" | "pollPeriod" | "publishTimeout" | "drainTimeout"
>

interface Setting {
  readonly env: string
  /** Absent: the setting is in the environment only. */
  readonly flag?: string
  readonly help: string
}

const { defaults } = PumpConfig

const settings = {
  databaseUrl: {
    env: "DATABASE_URL",
    flag: "database-url",
    help: "PostgreSQL, postgres://user:password@host:port/database; default an embedded one, kept in .controlpublish/"
  },
  databaseSchema: {
    env: "DATABASE_SCHEMA",
    flag: "database-schema",
    help: "The PostgreSQL schema that holds the tables of this package; default public"
  },
  sink: {
    env: "FEED_SINK",
    flag: "sink",
    help: "Where events are published to: nop (nowhere), file or jetstream; default nop"
  },
  sinkFileDir: {
    env: "FEED_SINK_FILE_DIR",
    flag: "sink-file-dir",
    help: "Where the sink file keeps the feed; default feed"
  },
  natsUrl: {
    env: "NATS_URL",
    flag: "nats-url",
    help: "The servers of JetStream, nats://user:password@host:port, several with commas; default nats://127.0.0.1:4222"
  },
  natsStream: {
    env: "NATS_STREAM",
    flag: "nats-stream",
    help: "The stream that is the feed; default control-events"
  },
  natsSubject: {
    env: "NATS_SUBJECT",
    flag: "nats-subject",
    help: `The subject of an event: {type}, {tenant_id}, {stack_id}, {event_id} and {ordering_key} stand for its fields; default ${JetStreamSink.defaults.subject}`
  },
  natsManageStream: {
    env: "NATS_MANAGE_STREAM",
    flag: "nats-manage-stream",
    help: "Whether a stream that is missing at the start is created, true or false; default false"
  },
  natsMinDuplicateWindow: {
    env: "NATS_MIN_DUPLICATE_WINDOW",
    flag: "nats-min-duplicate-window",
    help: `A stream that knows duplicates for less is refused, e.g. "5 minutes"; default ${Duration.format(JetStreamSink.defaults.minDuplicateWindow)}`
  },
  natsDeduplication: {
    env: "NATS_DEDUPLICATION",
    flag: "nats-deduplication",
    help: "What keeps second copies out after that: lookup (old events are looked for in the stream) or subject (one for each event); default lookup"
  },
  // In the environment only: a command line can be read by others on the machine.
  natsToken: { env: "NATS_TOKEN", help: "A token for NATS" },
  natsUser: { env: "NATS_USER", help: "A user of NATS" },
  natsPassword: { env: "NATS_PASSWORD", help: "The user's password" },
  natsCredsFile: { env: "NATS_CREDS_FILE", help: "A creds file for NATS" },
  natsTlsCaFile: { env: "NATS_TLS_CA_FILE", help: "The certificate authority of the servers" },
  natsTlsCertFile: { env: "NATS_TLS_CERT_FILE", help: "A certificate for servers that ask for one" },
  natsTlsKeyFile: { env: "NATS_TLS_KEY_FILE", help: "The key of the certificate" },
  batchSize: {
    env: "FEED_SINK_BATCH_SIZE",
    flag: "batch-size",
    help: `At most this many events in one publish; default ${defaults.batchSize}`
  },
  pollPeriod: {
    env: "FEED_POLL_PERIOD",
    flag: "poll-period",
    help: `How often an idle pump looks for events that nothing announced, e.g. "10 seconds" or 500ms; default ${Duration.format(defaults.pollPeriod)}`
  },
  concurrency: {
    env: "PUMP_CONCURRENCY",
    flag: "concurrency",
    help: `How many lanes are published at a time, each on a connection of its own; default ${defaults.concurrency}`
  },
  publishTimeout: {
    env: "PUMP_PUBLISH_TIMEOUT",
    flag: "publish-timeout",
    help: `How long one publish may take until the sink counts as unavailable; default ${Duration.format(defaults.publishTimeout)}`
  },
  drainTimeout: {
    env: "PUMP_DRAIN_TIMEOUT",
    flag: "drain-timeout",
    help: `How long a stop waits for publishes in flight; default ${Duration.format(defaults.drainTimeout)}`
  },
  source: {
    env: "FEED_SOURCE",
    flag: "source",
    help: "Where events are read from: nop (nowhere), file or jetstream; default nop"
  },
  sourceFileDir: {
    env: "FEED_SOURCE_FILE_DIR",
    flag: "source-file-dir",
    help: "Where the source file finds the feed; default feed"
  },
  artifactDir: {
    env: "ARTIFACT_DIR",
    flag: "artifact-dir",
    help: "Where the artifacts are that events refer to; default artifacts"
  },
  applyTables: {
    env: "APPLY_TABLES",
    flag: "tables",
    help: "The tables that artifacts may change, schema.table, several with commas"
  },
  cannotApply: {
    env: "APPLY_CANNOT_APPLY",
    flag: "cannot-apply",
    help: "What becomes of an event that can never be applied: halt (everything after it waits) or set-aside; default halt"
  },
  retention: {
    env: "RETENTION",
    flag: "retention",
    help: 'What is kept of the published events: the last "7 days", the newest "1000000 events", or all of them: off; default 7 days'
  },
  adminHost: {
    env: "ADMIN_HOST",
    flag: "admin-host",
    help: "The address of the admin API and the dashboard; any but this machine's own wants ADMIN_TOKEN; default 127.0.0.1"
  },
  adminPort: {
    env: "ADMIN_PORT",
    flag: "admin-port",
    help: "Its port, 0 for any that is free, or off; default 7070, or any that is free where that is taken"
  },
  adminToken: { env: "ADMIN_TOKEN", help: "What the admin API asks for before it changes anything" },
  adminUrl: {
    env: "ADMIN_URL",
    flag: "admin-url",
    help: "The admin API of the service that is meant; default http://127.0.0.1:7070"
  },
  // @effect/cli has a flag of its own for it, which wins.
  logLevel: { env: "LOG_LEVEL", help: "The least level that is logged; default info" },
  logFormat: {
    env: "LOG_FORMAT",
    help: "How it is logged: json, logfmt or pretty; default pretty on a terminal, else logfmt"
  },
  // Those of OpenTelemetry that decide whether it is loaded. The others are read by its SDK.
  otelDisabled: { env: "OTEL_SDK_DISABLED", help: "Whether nothing is exported, true or false; default false" },
  otelEndpoint: { env: "OTEL_EXPORTER_OTLP_ENDPOINT", help: "Where spans and metrics are exported to" },
  otelTracesEndpoint: { env: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", help: "Where spans are exported to" },
  otelMetricsEndpoint: { env: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", help: "Where metrics are exported to" },
  otelProtocol: { env: "OTEL_EXPORTER_OTLP_PROTOCOL", help: "http/protobuf" },
  otelTraces: { env: "OTEL_TRACES_EXPORTER", help: "otlp or none; default otlp where an endpoint is set" },
  otelMetrics: { env: "OTEL_METRICS_EXPORTER", help: "otlp or none; default otlp where an endpoint is set" },
  otelMetricsInterval: { env: "OTEL_METRIC_EXPORT_INTERVAL", help: "Milliseconds; default 60000" },
  otelSampler: { env: "OTEL_TRACES_SAMPLER", help: "Which traces are exported; default parentbased_always_on" }
} satisfies Record<string, Setting>

const flag = <A>(setting: Required<Setting>, make: (name: string) => Options.Options<A>) =>
  make(setting.flag).pipe(Options.withDescription(`${setting.help} [${setting.env}]`), Options.optional)

/**
 * The flags of the settings of the database.
 *
 * @since 1.0.0
 * @category flags
 */
export const databaseFlags = {
  databaseUrl: flag(settings.databaseUrl, Options.redacted),
  databaseSchema: flag(settings.databaseSchema, Options.text)
}

const natsFlags = {
  natsUrl: flag(settings.natsUrl, Options.redacted),
  natsStream: flag(settings.natsStream, Options.text)
}

/**
 * The flag of the retention.
 *
 * @since 1.0.0
 * @category flags
 */
export const retentionFlags = { retention: flag(settings.retention, Options.text) }

/**
 * The flag of the commands that talk to a service.
 *
 * @since 1.0.0
 * @category flags
 */
export const adminClientFlags = { adminUrl: flag(settings.adminUrl, Options.text) }

/**
 * The flags of the settings of the source.
 *
 * @since 1.0.0
 * @category flags
 */
export const sourceFlags = {
  source: flag(settings.source, Options.text),
  sourceFileDir: flag(settings.sourceFileDir, Options.text),
  ...natsFlags
}

/**
 * The flags of the settings of `apply`.
 *
 * @since 1.0.0
 * @category flags
 */
export const applyFlags = {
  ...databaseFlags,
  ...sourceFlags,
  artifactDir: flag(settings.artifactDir, Options.text),
  applyTables: flag(settings.applyTables, Options.text),
  cannotApply: flag(settings.cannotApply, Options.text)
}

/**
 * The flags of the settings of `serve`.
 *
 * @since 1.0.0
 * @category flags
 */
export const serveFlags = {
  ...databaseFlags,
  sink: flag(settings.sink, Options.text),
  sinkFileDir: flag(settings.sinkFileDir, Options.text),
  ...natsFlags,
  natsSubject: flag(settings.natsSubject, Options.text),
  natsManageStream: flag(settings.natsManageStream, Options.text),
  natsMinDuplicateWindow: flag(settings.natsMinDuplicateWindow, Options.text),
  natsDeduplication: flag(settings.natsDeduplication, Options.text),
  batchSize: flag(settings.batchSize, Options.text),
  pollPeriod: flag(settings.pollPeriod, Options.text),
  concurrency: flag(settings.concurrency, Options.text),
  publishTimeout: flag(settings.publishTimeout, Options.text),
  drainTimeout: flag(settings.drainTimeout, Options.text),
  ...retentionFlags,
  adminHost: flag(settings.adminHost, Options.text),
  adminPort: flag(settings.adminPort, Options.text)
}

/**
 * What was given for flags.
 *
 * @since 1.0.0
 * @category flags
 */
export type Flags = { readonly [Name in keyof typeof settings]?: Option.Option<string | Redacted.Redacted> }

/**
 * Runs an effect with flags before the settings of the environment.
 *
 * @since 1.0.0
 * @category flags
 */
export const withFlags =
  (given: Flags) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
    const values = new Map<string, string>()
    for (const [name, value] of Object.entries(given)) {
      const text = Option.map(value, (value) => (Redacted.isRedacted(value) ? Redacted.value(value) : value))
      if (Option.isSome(text) && text.value !== "") values.set(settings[name as keyof Flags].env, text.value)
    }
    return Effect.configProviderWith((environment) =>
      Effect.withConfigProvider(
        self,
        ConfigProvider.orElse(ConfigProvider.fromMap(values), () => environment)
      )
    )
  }

/** A setting that cannot be, said without naming it. */
type Parse<A> = (text: string) => Either.Either<A, string>

const nameOf = (setting: Setting): string =>
  setting.flag === undefined ? setting.env : `${setting.env} (--${setting.flag})`

const invalid = (setting: Setting, reason: string) =>
  new InvalidSetting({ setting: setting.env, message: `${nameOf(setting)}: ${reason}` })

const read = <A, B = undefined>(
  setting: Setting,
  parse: Parse<A>,
  absent: B = undefined as B
): Effect.Effect<A | B, InvalidSetting> => {
  return Effect.flatMap(
    Effect.mapError(Config.option(Config.nonEmptyString(setting.env)), (error) => invalid(setting, reasonOf(error))),
    Option.match({
      onNone: () => Effect.succeed<A | B>(absent),
      onSome: (text) => Effect.mapError(parse(text), (reason) => invalid(setting, reason))
    })
  )
}

const reasonOf = (error: ConfigError.ConfigError): string =>
  ConfigError.isConfigError(error) && "message" in error ? error.message : String(error)

/** A setting of the pump: what its text stands for, checked by the pump's own rule. */
const readPump = <Name extends keyof Pump>(
  name: Name,
  parse: (text: string) => Pump[Name] | undefined,
  options: {
    /** What the rule refuses in the same way as text that has no meaning. */
    readonly invalid: Pump[Name]
    readonly example?: string
  }
): Effect.Effect<Pump[Name], InvalidSetting> =>
  Effect.flatMap(
    read(settings[name], (text) => Either.right({ text, value: parse(text) ?? options.invalid })),
    (given) =>
      given === undefined
        ? Effect.succeed(defaults[name])
        : PumpConfig.make({ [name]: given.value }).pipe(
            Effect.as(given.value),
            Effect.mapError((error) => {
              const reason = reasonOf(error)
              // The rule names the value as it is in the program; ours is what was given.
              const valid = `${reason.slice(Math.max(reason.indexOf("valid is"), 0))}${options.example ?? ""}`
              return new InvalidSetting({
                setting: settings[name].env,
                message: `${nameOf(settings[name])}: got ${quote(given.text)}, ${valid}`
              })
            })
          )
  )

const parseInteger = (text: string): number | undefined => (/^\d+$/.test(text.trim()) ? Number(text) : undefined)

const units = {
  ms: Duration.millis,
  s: Duration.seconds,
  m: Duration.minutes,
  min: Duration.minutes,
  h: Duration.hours,
  d: Duration.days
}

/**
 * What a text stands for as a time: `10 seconds`, `500ms`, `7d`. Nothing where it stands for none.
 *
 * @since 1.0.0
 * @category settings
 */
export const parseDuration = (text: string): Duration.Duration | undefined => {
  const short = /^(\d+(?:\.\d+)?) *(ms|s|m|min|h|d)$/.exec(text.trim())
  return short === null
    ? Option.getOrUndefined(Duration.decodeUnknown(text.trim()))
    : units[short[2] as keyof typeof units](Number(short[1]))
}

const readDuration = (name: "pollPeriod" | "publishTimeout" | "drainTimeout") =>
  readPump(name, parseDuration, { invalid: Duration.zero, example: ', e.g. "10 seconds" or "500ms"' })

const parseSchema: Parse<string> = (text) =>
  Buffer.byteLength(text) <= 63
    ? Either.right(text)
    : Either.left(`got ${quote(text)}, valid is a name of at most 63 bytes`)

const feeds = ["nop", "file", "jetstream"] as const

const parseFeed: Parse<(typeof feeds)[number]> = (text) =>
  Either.fromNullable(
    feeds.find((feed) => feed === text),
    () => `got ${quote(text)}, valid is nop, file or jetstream`
  )

const parseLogLevel: Parse<LogLevel.LogLevel> = (text) => {
  const named = (level: LogLevel.LogLevel) => level._tag.toLowerCase()
  const level = LogLevel.allLevels.find((level) => named(level) === text.trim().toLowerCase())
  return level === undefined
    ? Either.left(`got ${quote(text)}, valid is one of ${LogLevel.allLevels.map(named).join(", ")}`)
    : Either.right(level)
}

/**
 * @since 1.0.0
 * @category settings
 */
export const schema: Effect.Effect<string, InvalidSetting> = read(settings.databaseSchema, parseSchema, "public")

/**
 * @since 1.0.0
 * @category settings
 */
export const database: Effect.Effect<Database, InvalidSetting> = Effect.all({
  url: read(settings.databaseUrl, DatabaseUrl.parse),
  schema
})

/**
 * @since 1.0.0
 * @category settings
 */
export const sink: Effect.Effect<SinkConfig, InvalidSetting> = Effect.gen(function* () {
  const name = yield* read(settings.sink, parseFeed, "nop" as const)
  switch (name) {
    case "nop":
      return { _tag: name }
    case "file":
      return { _tag: name, directory: yield* read(settings.sinkFileDir, Either.right, "feed") }
    case "jetstream":
      return { _tag: name, ...(yield* jetStream) }
  }
})

/**
 * @since 1.0.0
 * @category settings
 */
export const source: Effect.Effect<SourceConfig, InvalidSetting> = Effect.gen(function* () {
  const name = yield* read(settings.source, parseFeed, "nop" as const)
  switch (name) {
    case "nop":
      return { _tag: name }
    case "file":
      return { _tag: name, directory: yield* read(settings.sourceFileDir, Either.right, "feed") }
    case "jetstream":
      return { _tag: name, ...(yield* jetStreamFeed) }
  }
})

const parseTables: Parse<ReadonlySet<string>> = (text) => {
  const tables = text.split(",").map((table) => table.trim())
  const wrong = tables.find((table) => !/^[^.\s]+\.[^.\s]+$/.test(table))
  return wrong === undefined
    ? Either.right(new Set(tables))
    : Either.left(`got ${quote(wrong)}, valid is schema.table, several with commas between them`)
}

const parseCannotApply: Parse<Apply["cannotApply"]> = (text) =>
  text === "halt" || text === "set-aside"
    ? Either.right(text === "halt" ? text : "setAside")
    : Either.left(`got ${quote(text)}, valid is halt or set-aside`)

/**
 * @since 1.0.0
 * @category settings
 */
export const apply: Effect.Effect<Apply, InvalidSetting> = Effect.all({
  artifactDirectory: read(settings.artifactDir, Either.right, "artifacts"),
  tables: read(settings.applyTables, parseTables, new Set<string>()),
  cannotApply: read(settings.cannotApply, parseCannotApply, "halt" as const)
})

/** A file that a setting names. */
const readFile = <A>(setting: Setting, use: (path: string) => Effect.Effect<A, string>) =>
  Effect.flatMap(read(setting, Either.right), (path) =>
    path === undefined ? Effect.succeed(undefined) : Effect.mapError(use(path), (reason) => invalid(setting, reason))
  )

const natsCredentials = (
  ofUrl: JetStreamSink.Credentials | undefined
): Effect.Effect<JetStreamSink.Credentials | undefined, InvalidSetting> =>
  Effect.gen(function* () {
    const token = yield* read(settings.natsToken, (text) => Either.right(Redacted.make(text)))
    const user = yield* read(settings.natsUser, Either.right)
    const password = yield* read(settings.natsPassword, (text) => Either.right(Redacted.make(text)))
    const creds = yield* readFile(settings.natsCredsFile, NatsSettings.readSecret)
    if (user !== undefined && password === undefined) {
      return yield* invalid(settings.natsPassword, "is missing, while NATS_USER is set")
    }
    if (user === undefined && password !== undefined) {
      return yield* invalid(settings.natsUser, "is missing, while NATS_PASSWORD is set")
    }
    const given: ReadonlyArray<readonly [Setting, JetStreamSink.Credentials]> = [
      ...(token === undefined ? [] : ([[settings.natsToken, { _tag: "token", token }]] as const)),
      ...(user === undefined || password === undefined
        ? []
        : ([[settings.natsUser, { _tag: "password", user, password }]] as const)),
      ...(creds === undefined ? [] : ([[settings.natsCredsFile, { _tag: "creds", creds }]] as const))
    ]
    const [first, second] = given
    if (first !== undefined && second !== undefined) {
      return yield* invalid(second[0], `is set and so is ${first[0].env}: the servers take one of them`)
    }
    return first?.[1] ?? ofUrl
  })

/** How to reach the servers, and the stream that is the feed. */
const jetStreamFeed: Effect.Effect<JetStreamSource.Options, InvalidSetting> = Effect.gen(function* () {
  const { credentials, servers } = yield* read(settings.natsUrl, NatsSettings.parseAddresses, {
    servers: ["nats://127.0.0.1:4222"],
    credentials: undefined
  })
  const caFile = yield* readFile(settings.natsTlsCaFile, NatsSettings.readable)
  const certFile = yield* readFile(settings.natsTlsCertFile, NatsSettings.readable)
  const keyFile = yield* readFile(settings.natsTlsKeyFile, NatsSettings.readable)
  if ((certFile === undefined) !== (keyFile === undefined)) {
    const missing = certFile === undefined ? settings.natsTlsCertFile : settings.natsTlsKeyFile
    const given = certFile === undefined ? settings.natsTlsKeyFile : settings.natsTlsCertFile
    return yield* invalid(missing, `is missing, while ${given.env} is set`)
  }
  return {
    servers,
    credentials: yield* natsCredentials(credentials),
    tls: caFile === undefined && certFile === undefined ? undefined : { caFile, certFile, keyFile },
    stream: yield* read(settings.natsStream, Either.right, "control-events")
  }
})

const jetStream: Effect.Effect<JetStreamSink.Options, InvalidSetting> = Effect.gen(function* () {
  const options: JetStreamSink.Options = {
    ...(yield* jetStreamFeed),
    subject: yield* read(settings.natsSubject, Either.right, JetStreamSink.defaults.subject),
    manageStream: yield* read(
      settings.natsManageStream,
      NatsSettings.parseBoolean,
      JetStreamSink.defaults.manageStream
    ),
    minDuplicateWindow: yield* read(
      settings.natsMinDuplicateWindow,
      (text) => Either.fromNullable(parseDuration(text), () => `got ${quote(text)}, valid is e.g. "2 minutes" or 90s`),
      JetStreamSink.defaults.minDuplicateWindow
    ),
    deduplication: yield* read(
      settings.natsDeduplication,
      NatsSettings.parseDeduplication,
      JetStreamSink.defaults.deduplication
    )
  }
  yield* Effect.mapError(JetStreamSink.check(options), ({ option, reason }) => invalid(natsSettings[option], reason))
  return options
})

const natsSettings: Readonly<Record<JetStreamSink.JetStreamSinkError["option"], Setting>> = {
  servers: settings.natsUrl,
  stream: settings.natsStream,
  subject: settings.natsSubject,
  minDuplicateWindow: settings.natsMinDuplicateWindow
}

/**
 * @since 1.0.0
 * @category settings
 */
export const pump: Effect.Effect<Pump, InvalidSetting> = Effect.all({
  batchSize: readPump("batchSize", parseInteger, { invalid: Number.NaN }),
  concurrency: readPump("concurrency", parseInteger, { invalid: Number.NaN }),
  pollPeriod: readDuration("pollPeriod"),
  publishTimeout: readDuration("publishTimeout"),
  drainTimeout: readDuration("drainTimeout")
})

/**
 * @since 1.0.0
 * @category settings
 */
export const logLevel: Effect.Effect<LogLevel.LogLevel, InvalidSetting> = read(
  settings.logLevel,
  parseLogLevel,
  LogLevel.Info
)

/**
 * @since 1.0.0
 * @category models
 */
export type LogFormat = "json" | "logfmt" | "pretty"

const oneOf =
  <A extends string>(...valid: ReadonlyArray<A>): Parse<A> =>
  (text) =>
    Either.fromNullable(
      valid.find((value) => value === text.trim().toLowerCase()),
      () => `got ${quote(text)}, valid is one of ${valid.join(", ")}`
    )

/**
 * @since 1.0.0
 * @category settings
 */
export const logFormat: Effect.Effect<LogFormat, InvalidSetting> = read(
  settings.logFormat,
  oneOf("json", "logfmt", "pretty"),
  process.stderr.isTTY ? "pretty" : "logfmt"
)

/**
 * What is exported over OTLP. Where to and how is between the environment and OpenTelemetry's SDK.
 *
 * @since 1.0.0
 * @category models
 */
export interface Telemetry {
  readonly traces: boolean
  readonly metrics: boolean
  readonly metricsInterval: Duration.Duration
}

const parseEndpoint: Parse<true> = (text) =>
  URL.canParse(text) && /^https?:/.test(text)
    ? Either.right(true)
    : Either.left(`got ${quote(text)}, valid is e.g. "http://127.0.0.1:4318"`)

const parseMilliseconds: Parse<Duration.Duration> = (text) => {
  const millis = parseInteger(text)
  return millis === undefined || millis === 0
    ? Either.left(`got ${quote(text)}, valid is a number of milliseconds`)
    : Either.right(Duration.millis(millis))
}

/**
 * @since 1.0.0
 * @category settings
 */
export const telemetry: Effect.Effect<Telemetry, InvalidSetting> = Effect.gen(function* () {
  const exporter = oneOf("otlp", "none")
  const disabled = yield* read(settings.otelDisabled, oneOf("true", "false"), "false")
  const endpoint = yield* read(settings.otelEndpoint, parseEndpoint, false)
  const toTraces = yield* read(settings.otelTracesEndpoint, parseEndpoint, endpoint)
  const toMetrics = yield* read(settings.otelMetricsEndpoint, parseEndpoint, endpoint)
  const traces = yield* read(settings.otelTraces, exporter, toTraces ? "otlp" : "none")
  const metrics = yield* read(settings.otelMetrics, exporter, toMetrics ? "otlp" : "none")
  const metricsInterval = yield* read(settings.otelMetricsInterval, parseMilliseconds, Duration.minutes(1))
  // The SDK would replace what it does not know by its default, and not say so.
  yield* read(settings.otelProtocol, oneOf("http/protobuf"))
  yield* read(
    settings.otelSampler,
    oneOf(
      "always_on",
      "always_off",
      "traceidratio",
      "parentbased_always_on",
      "parentbased_always_off",
      "parentbased_traceidratio"
    )
  )
  return {
    traces: disabled === "false" && traces === "otlp",
    metrics: disabled === "false" && metrics === "otlp",
    metricsInterval
  }
})

const parseRetention: Parse<Retention.Keep> = (text) => {
  if (text.trim().toLowerCase() === "off") return Either.right("all")
  const [, count] = /^(\d+) *events?$/.exec(text.trim()) ?? []
  if (count !== undefined && Number(count) >= 1 && Number.isSafeInteger(Number(count))) {
    return Either.right({ _tag: "Count", count: Number(count) })
  }
  const age = parseDuration(text)
  return age !== undefined && Duration.toMillis(age) >= 1 && Duration.isFinite(age)
    ? Either.right({ _tag: "Age", age })
    : Either.left(`got ${quote(text)}, valid is a time ("7 days", 12h), a number of events ("1000000 events"), or off`)
}

/**
 * @since 1.0.0
 * @category settings
 */
export const retention: Effect.Effect<Retention.Keep, InvalidSetting> = read(
  settings.retention,
  parseRetention,
  Retention.defaultKeep
)

const parsePort: Parse<number | undefined> = (text) => {
  if (text.trim().toLowerCase() === "off") return Either.right(undefined)
  const port = parseInteger(text)
  return port !== undefined && port <= 65_535
    ? Either.right(port)
    : Either.left(`got ${quote(text)}, valid is a port from 0 (any that is free) to 65535, or off`)
}

/** A header carries it. */
const parseToken: Parse<Redacted.Redacted> = (text) =>
  /^[\x21-\x7e]+$/.test(text)
    ? Either.right(Redacted.make(text))
    : Either.left("has characters that cannot be (not shown here), valid are letters, digits and signs of ASCII")

const adminToken = read(settings.adminToken, parseToken)

const defaultAdminPort = 7070

/**
 * Absent where it is off.
 *
 * @since 1.0.0
 * @category settings
 */
export const admin: Effect.Effect<AdminServer.Options | undefined, InvalidSetting> = Effect.gen(function* () {
  const given = yield* read(settings.adminPort, (text) => Either.map(parsePort(text), (port) => ({ port })))
  const host = yield* read(settings.adminHost, Either.right, "127.0.0.1")
  const token = yield* adminToken
  if (given !== undefined && given.port === undefined) return undefined
  if (token === undefined && !isLoopback(host)) {
    return yield* invalid(
      settings.adminToken,
      `is missing, while ADMIN_HOST is ${quote(host)}: others than this machine could change the outbox`
    )
  }
  return { host, port: given?.port ?? defaultAdminPort, orFree: given === undefined, token }
})

const parseAdminUrl: Parse<string> = (text) => {
  const url = URL.canParse(text) ? new URL(text) : undefined
  return url !== undefined && /^https?:$/.test(url.protocol) && url.username === "" && url.search === ""
    ? Either.right(url.href.replace(/\/+$/, ""))
    : Either.left(`got ${quote(text)}, valid is e.g. http://127.0.0.1:${defaultAdminPort}`)
}

/**
 * The service that a command talks to.
 *
 * @since 1.0.0
 * @category settings
 */
export const adminClient: Effect.Effect<
  { readonly url: string; readonly token: Redacted.Redacted | undefined },
  InvalidSetting
> = Effect.all({
  url: read(settings.adminUrl, parseAdminUrl, `http://127.0.0.1:${defaultAdminPort}`),
  token: adminToken
})
