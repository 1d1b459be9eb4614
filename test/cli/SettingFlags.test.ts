import * as Command from "@effect/cli/Command"
import { NodeContext } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Redacted } from "effect"
import * as FeedSettings from "../../src/cli/FeedSettings.js"
import * as SettingFlags from "../../src/cli/SettingFlags.js"
import { DatabaseSettings } from "../../src/postgres/index.js"

describe("SettingFlags", () => {
  it.effect("puts flags before the environment, and takes empty ones for none", () =>
    Effect.gen(function* () {
      let found: unknown
      const command = Command.make(
        "controlpublish",
        { settings: SettingFlags.make(DatabaseSettings.group, ...FeedSettings.sinkGroups) },
        ({ settings }) =>
          Effect.gen(function* () {
            const { schema, url } = yield* DatabaseSettings.database
            found = { schema, url: Redacted.value(url!), sink: yield* FeedSettings.sink }
          }).pipe(SettingFlags.provide(settings))
      )
      const environment = { DATABASE_SCHEMA: "a", FEED_SINK: "file", FEED_SINK_FILE_DIR: "" }
      yield* Command.run(command, { name: "controlpublish", version: "0" })([
        ...["node", "controlpublish", "--database-url", "postgres://h/d", "--database-schema", "b", "--sink", ""]
      ]).pipe(
        Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(environment)))),
        Effect.provide(NodeContext.layer)
      )
      assert.deepStrictEqual(found, {
        schema: "b",
        url: "postgres://h/d",
        sink: { _tag: "file", directory: "feed", access: "owner" }
      })
    })
  )
})
