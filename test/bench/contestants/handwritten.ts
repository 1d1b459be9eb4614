// What a careful engineer writes against the same table without Effect, and without what the pump does beside: no
// errors sorted, no validation, no deadline, no shutdown.
import * as Pg from "pg"
import { Names } from "../support/outbox.js"
import { contestant, publisher } from "../support/contestant.js"

interface Row {
  readonly id: string
  readonly event_id: string
  readonly event_type: string
  readonly tenant_id: string
  readonly ordering_key: string
  readonly payload: string
}

const batchSize = 500
const lanesAtATime = 4

contestant(async ({ databaseUrl, natsUrl, options, schema, stream }) => {
  const { laneLock, outbox } = Names.make(schema)
  const pool = new Pg.Pool({ connectionString: databaseUrl, max: lanesAtATime })
  const nats = await publisher(natsUrl, stream)

  const messageOf = ({ event_id: eventId, event_type: type, payload, tenant_id: tenant }: Row) => ({
    eventId,
    type,
    tenant,
    payload
  })

  /** The keys of the batch at the same time, of each key one event after another. */
  const publishAll = (rows: ReadonlyArray<Row>) =>
    new Promise<ReadonlyArray<number>>((resolve) => {
      const versions = new Array<number>(rows.length)
      const keys = new Map<string, Array<number>>()
      rows.forEach((row, index) => {
        const key = keys.get(row.ordering_key)
        if (key === undefined) keys.set(row.ordering_key, [index])
        else key.push(index)
      })
      let left = rows.length
      for (const indexes of keys.values()) {
        let position = 0
        const next = () => {
          const index = indexes[position]!
          const row = rows[index]!
          const { event_id: eventId, event_type: type, payload, tenant_id: tenant } = row
          nats.send({ eventId, type, tenant, payload }, (sequence) => {
            versions[index] = sequence
            position++
            if (--left === 0) resolve(versions)
            else if (position < indexes.length) next()
          })
        }
        next()
      }
    })

  /** The batch as one of the stream's. */
  const publishBatch = (rows: ReadonlyArray<Row>) =>
    new Promise<ReadonlyArray<number>>((resolve) => {
      nats.sendBatch(rows.map(messageOf), (last) => resolve(rows.map((_, index) => last - rows.length + 1 + index)))
    })

  const publish = options?.publish === "batch" ? publishBatch : publishAll

  const publishLane = async (lane: number): Promise<number> => {
    const client = await pool.connect()
    try {
      await client.query("BEGIN")
      const lock = await client.query<{ taken: boolean }>(
        `SELECT pg_try_advisory_xact_lock(${laneLock}, ${lane}) AS taken`
      )
      if (lock.rows[0]?.taken !== true) return 0
      const { rows } = await client.query<Row>(
        `SELECT id, event_id, event_type, tenant_id, ordering_key, payload_json::text AS payload FROM ${outbox}
          WHERE published_at IS NULL AND parked_at IS NULL AND lane = ${lane} ORDER BY id LIMIT ${batchSize}`
      )
      if (rows.length === 0) return 0
      const versions = await publish(rows)
      await client.query(
        `UPDATE ${outbox} SET published_control_version = result.version, published_at = now(),
            attempt_count = attempt_count + 1, last_attempt_at = now()
          FROM unnest($1::bigint[], $2::bigint[]) AS result (id, version) WHERE ${outbox}.id = result.id`,
        [rows.map(({ id }) => id), versions]
      )
      return rows.length
    } finally {
      await client.query("COMMIT")
      client.release()
    }
  }

  return {
    work: async () => {
      let published = 0
      let before = -1
      while (published > before) {
        before = published
        const lanes = Array.from({ length: 64 }, (_, lane) => lane)
        await Promise.all(
          Array.from({ length: lanesAtATime }, async () => {
            for (let lane = lanes.pop(); lane !== undefined; lane = lanes.pop()) {
              // Not `+= await`, which reads the sum before it waits.
              const count = await publishLane(lane)
              published += count
            }
          })
        )
      }
      return { published }
    },
    close: async () => {
      await pool.end()
      await nats.close()
    }
  }
})
