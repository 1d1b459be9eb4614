import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as FeedSettings from "../../src/cli/FeedSettings.js"
import { given, messageOf } from "../support/settings.js"

describe("FeedSettings", () => {
  it.effect("reads the sink", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* given({})(FeedSettings.sink), { _tag: "nop" })
      assert.deepStrictEqual(yield* given({ FEED_SINK: "file", FEED_SINK_FILE_DIR: "" })(FeedSettings.sink), {
        _tag: "file",
        directory: "feed",
        access: "owner"
      })
      const other = given({ FEED_SINK: "file", FEED_SINK_FILE_DIR: "there", FEED_SINK_FILE_ACCESS: "group" })
      assert.deepStrictEqual(yield* other(FeedSettings.sink), { _tag: "file", directory: "there", access: "group" })
      assert.match(
        yield* messageOf(FeedSettings.sink, { FEED_SINK: "file", FEED_SINK_FILE_ACCESS: "0644" }),
        /^FEED_SINK_FILE_ACCESS \(--sink-file-access\): got "0644", valid is one of owner, group, all$/
      )
    })
  )

  it.effect("reads what a node is told", () =>
    Effect.gen(function* () {
      const nothing = given({})
      assert.deepStrictEqual(yield* nothing(FeedSettings.source), { _tag: "nop" })
      assert.deepStrictEqual(yield* nothing(FeedSettings.apply), {
        artifacts: { directory: "artifacts", maxBytes: 268_435_456 },
        tables: new Set<string>(),
        cannotApply: "halt"
      })
      assert.deepStrictEqual(yield* given({ FEED_SOURCE: "file" })(FeedSettings.source), {
        _tag: "file",
        directory: "feed"
      })
      const both = given({
        FEED_SOURCE: "file",
        FEED_SOURCE_FILE_DIR: "there",
        APPLY_TABLES: "public.a , other.b",
        APPLY_CANNOT_APPLY: "set-aside",
        ARTIFACT_DIR: "kept",
        ARTIFACT_MAX_BYTES: "1000"
      })
      assert.deepStrictEqual(yield* both(FeedSettings.source), { _tag: "file", directory: "there" })
      assert.deepStrictEqual(yield* both(FeedSettings.apply), {
        artifacts: { directory: "kept", maxBytes: 1000 },
        tables: new Set(["public.a", "other.b"]),
        cannotApply: "setAside"
      })
      // Settings of the sink are none of the source's.
      const jetStream = given({ FEED_SOURCE: "jetstream", NATS_STREAM: "s", NATS_SUBJECT: "a..b" })
      assert.deepStrictEqual(yield* jetStream(FeedSettings.source), {
        _tag: "jetstream",
        servers: ["nats://127.0.0.1:4222"],
        credentials: undefined,
        tls: undefined,
        stream: "s"
      })
      for (const tables of ["tenants", "public.tenants,", "a.b.c", "public. tenants"]) {
        assert.match(
          yield* messageOf(FeedSettings.apply, { APPLY_TABLES: tables }),
          /^APPLY_TABLES \(--tables\): got ".*", valid is schema\.table, separated by commas$/
        )
      }
    })
  )

  it.effect("shows what was given in one line, without the password of a URL that got to the wrong place", () =>
    Effect.gen(function* () {
      const message = yield* messageOf(FeedSettings.sink, {
        FEED_SINK: `postgres://u:s3/cret@h/d\n\u001b[31m${"x".repeat(500)}`
      })
      assert.match(message, /^FEED_SINK \(--sink\): got "postgres:\/\/\*\*\*@h\/d �\[31mx+…", valid is nop, file/)
      assert.isBelow(message.length, 250)
    })
  )

  it.effect("looks at no settings of another sink", () =>
    Effect.gen(function* () {
      for (const sink of ["nop", "file"]) {
        yield* given({ FEED_SINK: sink, NATS_URL: "http://x", NATS_TOKEN: "t", NATS_USER: "u" })(FeedSettings.sink)
      }
    })
  )
})
