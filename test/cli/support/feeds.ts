/** Feeds as a pump leaves them, filled by hand. */
import { jetstreamManager } from "@nats-io/jetstream"
import { connect } from "@nats-io/transport-node"
import { Effect, type Scope } from "effect"
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import * as Nats from "../../support/nats.js"

export interface Event {
  readonly event_id: string
  readonly type: string
  readonly [field: string]: unknown
}

export interface Feed {
  /** The settings of who reads it. */
  readonly env: Record<string, string>
  /** Their control versions go on from those before, from 1 on. */
  readonly publish: (events: ReadonlyArray<Event>) => Effect.Effect<void>
}

/** A directory below one that is there. */
export const file = (below: string): Effect.Effect<Feed> =>
  Effect.promise(async () => {
    const directory = Path.join(below, "feed")
    await Fs.mkdir(directory)
    let version = 0
    return {
      env: { FEED_SOURCE: "file", FEED_SOURCE_FILE_DIR: directory },
      publish: (events) =>
        Effect.promise(async () => {
          for (const event of events) {
            const temporary = Path.join(below, "unfinished")
            await Fs.writeFile(temporary, JSON.stringify({ ...event, control_version: ++version }))
            await Fs.rename(temporary, Path.join(directory, `${event.event_id}.json`))
          }
        })
    }
  })

/** A stream on a server of its own. */
export const jetStream: Effect.Effect<
  Feed & {
    /** Removes the events up to a version. */
    readonly purge: (version: number) => Effect.Effect<void>
  },
  never,
  Scope.Scope
> = Effect.gen(function* () {
  const server = yield* Nats.nats()
  const withConnection = <A>(use: (nc: Awaited<ReturnType<typeof connect>>) => Promise<A>) =>
    Effect.promise(async () => {
      const nc = await connect({ servers: server.url })
      return use(nc).finally(() => nc.close())
    })
  yield* withConnection(async (nc) =>
    (await jetstreamManager(nc)).streams.add({ name: "control-events", subjects: ["control.events.>"] })
  )
  return {
    env: { FEED_SOURCE: "jetstream", NATS_URL: server.url },
    purge: (version) =>
      withConnection(async (nc) => {
        await (await jetstreamManager(nc)).streams.purge("control-events", { seq: version + 1 })
      }),
    publish: (events) =>
      withConnection(async (nc) => {
        const jetStream = (await jetstreamManager(nc)).jetstream()
        for (const event of events) {
          await jetStream.publish(`control.events.${event.type}`, JSON.stringify(event), { msgID: event.event_id })
        }
      })
  }
})
