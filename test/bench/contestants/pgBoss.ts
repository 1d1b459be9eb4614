// pg-boss: batches fetched and completed as a whole, several fetches at a time.
import PgBoss from "pg-boss"
import { contestant, publisher, type Message } from "../support/contestant.js"

const batchSize = 500
const atATime = 4

contestant(async ({ databaseUrl, natsUrl, schema, stream }) => {
  const boss = new PgBoss({
    connectionString: databaseUrl,
    schema,
    max: 2 * atATime,
    supervise: false,
    schedule: false
  })
  await boss.start()
  await boss.createQueue("events")
  const nats = await publisher(natsUrl, stream)
  const publishBatch = async (): Promise<number> => {
    const jobs = await boss.fetch("events", { batchSize })
    if (jobs.length === 0) return 0
    await Promise.all(jobs.map((job) => nats.publish(job.data as Message)))
    await boss.complete(
      "events",
      jobs.map((job) => job.id)
    )
    return jobs.length
  }
  return {
    work: async () => {
      let published = 0
      await Promise.all(
        Array.from({ length: atATime }, async () => {
          for (let count = await publishBatch(); count > 0; count = await publishBatch()) published += count
        })
      )
      return { published }
    },
    close: async () => {
      await boss.stop({ graceful: false })
      await nats.close()
    }
  }
})
