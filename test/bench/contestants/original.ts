// The algorithm of the Go package: 64 rows, one publish after another, one write-back.
import * as Pg from "pg"
import { Names } from "../support/outbox.js"
import { contestant, publisher } from "../support/contestant.js"

const batchSize = 64

contestant(async ({ databaseUrl, natsUrl, schema, stream }) => {
  const { outbox } = Names.make(schema)
  const client = new Pg.Client({ connectionString: databaseUrl })
  await client.connect()
  await client.query(`CREATE INDEX ON ${outbox} (id) WHERE published_at IS NULL AND parked_at IS NULL`)
  const nats = await publisher(natsUrl, stream)
  return {
    work: async () => {
      let published = 0
      for (;;) {
        const { rows } = await client.query<{
          id: string
          event_id: string
          event_type: string
          tenant_id: string
          payload: string
        }>(
          `SELECT id, event_id, event_type, tenant_id, payload_json::text AS payload FROM ${outbox}
            WHERE published_at IS NULL AND parked_at IS NULL ORDER BY id LIMIT ${batchSize}`
        )
        if (rows.length === 0) return { published }
        const versions: Array<number> = []
        for (const { event_id: eventId, event_type: type, payload, tenant_id: tenant } of rows) {
          versions.push(await nats.publish({ eventId, type, tenant, payload }))
        }
        await client.query(
          `UPDATE ${outbox} SET published_control_version = result.version, published_at = now()
            FROM unnest($1::bigint[], $2::bigint[]) AS result (id, version) WHERE ${outbox}.id = result.id`,
          [rows.map(({ id }) => id), versions]
        )
        published += rows.length
      }
    },
    close: async () => {
      await client.end()
      await nats.close()
    }
  }
})
