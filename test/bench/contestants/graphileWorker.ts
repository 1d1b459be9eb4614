// graphile-worker: a local queue, completions in batches, as its documentation advises for throughput.
import { Logger, runOnce } from "graphile-worker"
import * as Pg from "pg"
import { contestant, publisher, type Message } from "../support/contestant.js"

contestant(async ({ databaseUrl, natsUrl, schema, stream }) => {
  const pool = new Pg.Pool({ connectionString: databaseUrl, max: 30 })
  pool.on("error", () => {})
  const nats = await publisher(natsUrl, stream)
  return {
    work: async () => {
      let published = 0
      await runOnce({
        pgPool: pool,
        schema,
        noHandleSignals: true,
        logger: new Logger(() => () => {}),
        preset: {
          worker: {
            schema,
            concurrentJobs: 24,
            localQueue: { size: 500 },
            completeJobBatchDelay: 0,
            failJobBatchDelay: 0
          }
        },
        taskList: {
          publish: async (message) => {
            await nats.publish(message as Message)
            published++
          }
        }
      })
      return { published }
    },
    close: async () => {
      await pool.end()
      await nats.close()
    }
  }
})
