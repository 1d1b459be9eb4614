import { Effect, type Scope } from "effect"
import { mkdir, rename, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { DemoError } from "./error.js"
import { howToInstall, isInstalled, startNats } from "../support/nats.js"

/** The feed between the admin service and its nodes, which can be taken down. */
export interface Feed {
  readonly name: string
  /** The settings of `serve` and `apply`. */
  readonly env: Readonly<Record<string, string>>
  readonly isUp: () => boolean
  readonly down: Effect.Effect<void>
  readonly up: Effect.Effect<void>
}

const switched = (
  feed: Pick<Feed, "name" | "env">,
  take: { readonly down: () => Promise<void>; readonly up: () => Promise<void> }
): Feed => {
  let isUp = true
  const to = (wanted: boolean, change: () => Promise<void>) =>
    Effect.promise(async () => {
      if (isUp === wanted) return
      await change()
      isUp = wanted
    })
  return { ...feed, isUp: () => isUp, down: to(false, take.down), up: to(true, take.up) }
}

/** A directory. While it is down there is a file in its place: a pump that starts would make an empty one. */
export const file = (directory: string): Effect.Effect<Feed> =>
  Effect.promise(async () => {
    const path = join(directory, "feed")
    await mkdir(path)
    return switched(
      {
        name: path,
        env: { FEED_SINK: "file", FEED_SINK_FILE_DIR: path, FEED_SOURCE: "file", FEED_SOURCE_FILE_DIR: path }
      },
      {
        down: async () => {
          await rename(path, `${path}.away`)
          await writeFile(path, "", { flag: "wx" })
        },
        up: async () => {
          await rm(path)
          await rename(`${path}.away`, path)
        }
      }
    )
  })

/** A nats-server, which is killed. */
export const jetStream: Effect.Effect<Feed, DemoError, Scope.Scope> = Effect.gen(function* () {
  if (!isInstalled) return yield* new DemoError({ message: howToInstall })
  const nats = yield* Effect.acquireRelease(
    Effect.promise(() => startNats()),
    (nats) => Effect.promise(() => nats.close())
  )
  return switched(
    {
      name: `the stream control-events at ${nats.url}`,
      env: { FEED_SINK: "jetstream", FEED_SOURCE: "jetstream", NATS_URL: nats.url, NATS_MANAGE_STREAM: "true" }
    },
    { down: () => nats.kill(), up: () => nats.start() }
  )
})
