// pg-transactional-outbox: polling, a segment for each key, a connection for each message that is handled.
import { getDisabledLogger, initializePollingMessageListener } from "pg-transactional-outbox"
import { setImmediate as nextTurn } from "node:timers/promises"
import { contestant, publisher, type Message } from "../support/contestant.js"

const batchSize = 200
const atATime = 20

contestant(async ({ databaseUrl, natsUrl, options, schema, stream }) => {
  const nats = await publisher(natsUrl, stream)
  const events = Number(options?.events)
  let stop = () => Promise.resolve()
  return {
    work: async () => {
      let published = 0
      await new Promise<void>((resolve) => {
        const [shutdown] = initializePollingMessageListener(
          {
            outboxOrInbox: "outbox",
            dbListenerConfig: { connectionString: databaseUrl, max: atATime },
            settings: {
              dbSchema: schema,
              dbTable: "outbox",
              nextMessagesFunctionSchema: schema,
              nextMessagesFunctionName: "next_outbox_messages",
              nextMessagesBatchSize: batchSize,
              nextMessagesPollingIntervalInMs: 1,
              enableMaxAttemptsProtection: false,
              enablePoisonousMessageProtection: false
            }
          },
          {
            handle: async ({ payload }) => {
              await nats.publish(payload as Message)
              if (++published === events) resolve()
            }
          },
          getDisabledLogger(),
          {
            // Whole batches: what it polls for while others are handled locks rows that those are about to lock, and
            // costs each of them the 5 seconds that a message stays locked.
            batchSizeStrategy: async (handling) => {
              if (handling === 0) return batchSize
              await nextTurn()
              return handling
            }
          }
        )
        stop = shutdown
      })
      return { published }
    },
    close: async () => {
      await stop()
      await nats.close()
    }
  }
})
