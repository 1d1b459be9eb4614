// What a careful engineer writes for one node without Effect, and without what the applier does beside: no validation,
// no errors sorted, no shutdown.
import { DeliverPolicy, jetstreamManager } from "@nats-io/jetstream"
import { connect } from "@nats-io/transport-node"
import * as Pg from "pg"
import { contestant } from "../support/contestant.js"
import { applySql } from "../support/node.js"
import { Names } from "../support/outbox.js"

contestant(async ({ databaseUrl, natsUrl, schema, stream }) => {
  const quoted = Names.quote(schema)
  const client = new Pg.Client({ connectionString: databaseUrl })
  await client.connect()
  const nc = await connect({ servers: natsUrl })
  const manager = await jetstreamManager(nc)
  const change = applySql(schema)
  return {
    work: async () => {
      const { rows } = await client.query<{ position: number }>(
        `SELECT control_version::int AS position FROM ${quoted}.applied_position`
      )
      const consumer = await manager.jetstream().consumers.get(stream, {
        deliver_policy: DeliverPolicy.StartSequence,
        opt_start_seq: rows[0]!.position + 1
      })
      let applied = 0
      const messages = await consumer.consume({ max_messages: 500 })
      for await (const message of messages) {
        const event = message.json<{ event_id: string; tenant_id: string }>()
        await client.query("BEGIN")
        const { rowCount } = await client.query(
          `INSERT INTO ${quoted}.applied_events (event_id, control_version, applied_at) VALUES ($1, $2, now()) ON CONFLICT DO NOTHING`,
          [event.event_id, message.seq]
        )
        if (rowCount === 1) await client.query(change, [event.tenant_id, event.event_id])
        await client.query(`UPDATE ${quoted}.applied_position SET control_version = $1`, [message.seq])
        await client.query("COMMIT")
        applied++
        if (message.info.pending === 0) break
      }
      await messages.close()
      return { applied }
    },
    close: async () => {
      await client.end()
      await nc.close()
    }
  }
})
