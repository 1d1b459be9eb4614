// One publish after another, each once the one before is acknowledged: no order of one key can be faster.
import { contestant, publisher } from "../support/contestant.js"
import { payloadOf } from "../support/outbox.js"

contestant(async ({ natsUrl, options, stream }) => {
  const nats = await publisher(natsUrl, stream)
  let next = 0
  return {
    work: async () => {
      for (let left = Number(options!.events); left > 0; left--) {
        const n = next++
        await nats.publish({ eventId: `r-${n}`, type: "tenant.created", tenant: "t0", payload: payloadOf(n) })
      }
      return {}
    },
    close: () => nats.close()
  }
})
