/**
 * The settings of JetStream: how to reach the servers, which stream is the feed, and how the sink publishes to it.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { quote } from "../internal/printable.js"
import * as Setting from "../Setting.js"
import * as NatsSettings from "./internal/natsSettings.js"
import type * as Connection from "./Connection.js"
import * as JetStreamSink from "./JetStreamSink.js"
import type * as JetStreamSource from "./JetStreamSource.js"

const { defaults } = JetStreamSink

const url = Setting.make({
  env: "NATS_URL",
  flag: "nats-url",
  secret: true,
  description: "The NATS servers, nats://user:password@host:port, separated by commas",
  defaultText: "nats://127.0.0.1:4222",
  default: { servers: ["nats://127.0.0.1:4222"], credentials: undefined },
  parse: NatsSettings.parseAddresses
})

const stream = Setting.make({
  env: "NATS_STREAM",
  flag: "nats-stream",
  description: "The stream that is the feed",
  default: "control-events",
  parse: Setting.text
})

// Credentials have no flags: other users of the machine can read a command line.
const token = Setting.make({
  env: "NATS_TOKEN",
  description: "A token; set only one of token, user and creds file",
  parse: Setting.secret
})

const user = Setting.make({ env: "NATS_USER", description: "A user", parse: Setting.text })

const password = Setting.make({ env: "NATS_PASSWORD", description: "The user's password", parse: Setting.secret })

const credsFile = Setting.make({ env: "NATS_CREDS_FILE", description: "A creds file", parse: Setting.text })

const caFile = Setting.make({
  env: "NATS_TLS_CA_FILE",
  description: "A PEM file with the certificate authority of the servers",
  parse: Setting.text
})

const certFile = Setting.make({
  env: "NATS_TLS_CERT_FILE",
  description: "A PEM file with the client certificate, for servers that require one",
  parse: Setting.text
})

const keyFile = Setting.make({
  env: "NATS_TLS_KEY_FILE",
  description: "A PEM file with the key of the client certificate",
  parse: Setting.text
})

const subject = Setting.make({
  env: "NATS_SUBJECT",
  flag: "nats-subject",
  description:
    "The subject of an event, with {type}, {tenant_id}, {stack_id}, {event_id} and {ordering_key} replaced by its fields",
  default: defaults.subject,
  parse: Setting.text
})

const manageStream = Setting.make({
  env: "NATS_MANAGE_STREAM",
  flag: "nats-manage-stream",
  description: "Whether the sink creates a missing stream at start, true or false",
  default: defaults.manageStream,
  parse: Setting.boolean
})

const minDuplicateWindow = Setting.make({
  env: "NATS_MIN_DUPLICATE_WINDOW",
  flag: "nats-min-duplicate-window",
  description: "A stream with a shorter duplicate window is rejected",
  default: defaults.minDuplicateWindow,
  parse: (text) =>
    Either.fromNullable(Setting.parseDuration(text), () => `got ${quote(text)}, valid is e.g. "2 minutes" or 90s`)
})

const deduplication = Setting.make({
  env: "NATS_DEDUPLICATION",
  flag: "nats-deduplication",
  description:
    "How duplicates are prevented after the window: lookup (read the stream back for old events) or subject (one subject per event)",
  default: defaults.deduplication,
  parse: NatsSettings.parseDeduplication
})

const publish = Setting.make({
  env: "NATS_PUBLISH",
  flag: "nats-publish",
  description:
    "How events are published: message (one at a time per key), batch (atomic batches of nats-server 2.12.1) or auto (batches where a key has many events)",
  default: defaults.publish,
  parse: NatsSettings.parsePublish
})

/**
 * The settings that sink and source share: servers, credentials, TLS and the stream.
 *
 * @since 0.1.0
 * @category declarations
 */
export const feedGroup: Setting.Group = {
  title: "JetStream",
  settings: [url, stream, token, user, password, credsFile, caFile, certFile, keyFile]
}

/**
 * The settings of the sink alone.
 *
 * @since 0.1.0
 * @category declarations
 */
export const sinkGroup: Setting.Group = {
  title: "JetStream sink",
  settings: [subject, manageStream, minDuplicateWindow, deduplication, publish]
}

const credentialsOf = (
  ofUrl: Connection.Credentials | undefined
): Effect.Effect<Connection.Credentials | undefined, Setting.InvalidSetting> =>
  Effect.gen(function* () {
    const given = {
      token: yield* Setting.read(token),
      user: yield* Setting.read(user),
      password: yield* Setting.read(password),
      creds: yield* fileOf(credsFile, NatsSettings.readSecret)
    }
    if (given.user !== undefined && given.password === undefined) {
      return yield* Setting.invalid(password, `is missing, while ${user.env} is set`)
    }
    if (given.user === undefined && given.password !== undefined) {
      return yield* Setting.invalid(user, `is missing, while ${password.env} is set`)
    }
    const ways: ReadonlyArray<readonly [Setting.Any, Connection.Credentials]> = [
      ...(given.token === undefined ? [] : ([[token, { _tag: "token", token: given.token }]] as const)),
      ...(given.user === undefined || given.password === undefined
        ? []
        : ([[user, { _tag: "password", user: given.user, password: given.password }]] as const)),
      ...(given.creds === undefined ? [] : ([[credsFile, { _tag: "creds", creds: given.creds }]] as const))
    ]
    const [first, second] = ways
    if (first !== undefined && second !== undefined) {
      return yield* Setting.invalid(second[0], `is set and so is ${first[0].env}: set only one of them`)
    }
    return first?.[1] ?? ofUrl
  })

/** Reads the file that a setting names. */
const fileOf = <A>(setting: Setting.Setting<string>, use: (path: string) => Effect.Effect<A, string>) =>
  Effect.flatMap(Setting.read(setting), (path) =>
    path === undefined
      ? Effect.succeed(undefined)
      : Effect.mapError(use(path), (reason) => Setting.invalid(setting, reason))
  )

/**
 * Reads how to reach the servers, and the stream that is the feed.
 *
 * @since 0.1.0
 * @category reading
 */
export const source: Effect.Effect<JetStreamSource.Options, Setting.InvalidSetting> = Effect.gen(function* () {
  const { credentials, servers } = yield* Setting.read(url)
  const tls = {
    caFile: yield* fileOf(caFile, NatsSettings.readable),
    certFile: yield* fileOf(certFile, NatsSettings.readable),
    keyFile: yield* fileOf(keyFile, NatsSettings.readable)
  }
  if ((tls.certFile === undefined) !== (tls.keyFile === undefined)) {
    const [missing, given] = tls.certFile === undefined ? [certFile, keyFile] : [keyFile, certFile]
    return yield* Setting.invalid(missing, `is missing, while ${given.env} is set`)
  }
  return {
    servers,
    credentials: yield* credentialsOf(credentials),
    tls: tls.caFile === undefined && tls.certFile === undefined ? undefined : tls,
    stream: yield* Setting.read(stream)
  }
})

/**
 * Reads the settings of the sink.
 *
 * @since 0.1.0
 * @category reading
 */
export const sink: Effect.Effect<JetStreamSink.Options, Setting.InvalidSetting> = Effect.gen(function* () {
  const options: JetStreamSink.Options = {
    ...(yield* source),
    subject: yield* Setting.read(subject),
    manageStream: yield* Setting.read(manageStream),
    minDuplicateWindow: yield* Setting.read(minDuplicateWindow),
    deduplication: yield* Setting.read(deduplication),
    publish: yield* Setting.read(publish)
  }
  yield* Effect.mapError(JetStreamSink.check(options), ({ option, reason }) =>
    Setting.invalid(settingOf[option], reason)
  )
  return options
})

const settingOf: Readonly<Record<JetStreamSink.JetStreamSinkError["option"], Setting.Any>> = {
  servers: url,
  stream,
  subject,
  minDuplicateWindow
}
