import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { DatabaseSettings } from "../../src/postgres/index.js"
import { given, messageOf } from "../support/settings.js"

describe("DatabaseSettings", () => {
  it.effect("reads the environment", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* given({})(DatabaseSettings.database), {
        url: undefined,
        directUrl: undefined,
        schema: "public"
      })
      const { schema, url } = yield* given({
        DATABASE_URL: "postgres://u:p%23@h:5433/d?sslmode=disable",
        DATABASE_SCHEMA: "outbox"
      })(DatabaseSettings.database)
      assert.strictEqual(Redacted.value(url!), "postgres://u:p%23@h:5433/d?sslmode=disable")
      assert.strictEqual(schema, "outbox")
    })
  )

  it.effect("refuses a schema whose name PostgreSQL would cut", () =>
    Effect.gen(function* () {
      const message = yield* messageOf(DatabaseSettings.schema, { DATABASE_SCHEMA: "ä".repeat(32) })
      assert.match(message, /^DATABASE_SCHEMA \(--database-schema\): got "ä+", valid is a name of at most 63 bytes$/)
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
      for (const url of urls) yield* given({ DATABASE_URL: url })(DatabaseSettings.database)
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
        const message = yield* messageOf(DatabaseSettings.database, { DATABASE_URL: url })
        assert.match(message, /^DATABASE_URL \(--database-url\): (got|cannot be used)/, url)
        assert.notInclude(message, "s3cret")
      }
    })
  )
})
