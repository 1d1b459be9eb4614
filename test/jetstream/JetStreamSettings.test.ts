import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Redacted } from "effect"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { inspect } from "node:util"
import { JetStreamSettings, JetStreamSink } from "../../src/jetstream/index.js"
import { given, messageOf } from "../support/settings.js"

describe("JetStreamSettings", () => {
  const jetStream = (environment: Record<string, string>) => given(environment)(JetStreamSettings.sink)

  const refused = (environment: Record<string, string>) => messageOf(JetStreamSettings.sink, environment)

  const file = (name: string, contents: string) =>
    Effect.acquireRelease(
      Effect.promise(async () => {
        const directory = await mkdtemp(join(tmpdir(), "controlpublish-config-"))
        await writeFile(join(directory, name), contents)
        return { directory, path: join(directory, name) }
      }),
      ({ directory }) => Effect.promise(() => rm(directory, { recursive: true }))
    )

  it.effect("has the defaults of the sink", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* jetStream({}), {
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
        NATS_DEDUPLICATION: "subject",
        NATS_PUBLISH: "batch"
      })
      assert.deepStrictEqual(sink.servers, ["nats://a:4222", "tls://b:4333"])
      assert.deepStrictEqual(
        [sink.stream, sink.subject, sink.manageStream, sink.deduplication, sink.publish],
        ["s", "x.{tenant_id}", true, "subject", "batch"]
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

  it.effect("rejects invalid values, and names the setting", () =>
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
        [{ NATS_MANAGE_STREAM: "1" }, /^NATS_MANAGE_STREAM \(--nats-manage-stream\): got "1", valid is true or false$/],
        [
          { NATS_MIN_DUPLICATE_WINDOW: "1ms" },
          /^NATS_MIN_DUPLICATE_WINDOW \(--nats-min-duplicate-window\): .* at least 100 milliseconds/
        ],
        [{ NATS_DEDUPLICATION: "none" }, /^NATS_DEDUPLICATION \(--nats-deduplication\): got "none"/],
        [{ NATS_PUBLISH: "both" }, /^NATS_PUBLISH \(--nats-publish\): got "both", valid is message, batch or auto/]
      ]
      for (const [environment, expected] of cases) assert.match(yield* refused(environment), expected)
    }).pipe(Effect.scoped)
  )

  it.effect("never repeats an invalid address", () =>
    Effect.gen(function* () {
      for (const url of ["http://u:s3cret@h", "nats://u:s3/cret@h", "nats://u:s3cret@h:port", "nats://a,://s3cret"]) {
        const message = yield* refused({ NATS_URL: url })
        assert.match(message, /^NATS_URL \(--nats-url\): /, url)
        assert.notMatch(message, /s3\/?cret/)
      }
    })
  )
})
