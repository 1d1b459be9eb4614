// Appends at a steady rate, however long the ones before take: an open loop.
import * as Pg from "pg"
import { Names } from "../support/outbox.js"
import { contestant, sharedClock } from "../support/contestant.js"

contestant(({ databaseUrl, options, schema }) => {
  const rate = Number(options!.rate)
  const keys = Number(options!.keys)
  const pool = new Pg.Pool({ connectionString: databaseUrl, max: 16, min: 16 })
  const text = `INSERT INTO ${Names.make(schema).outbox} (event_id, event_type, tenant_id, payload_json) VALUES ($1, 'tenant.created', $2, $3)`
  let next = 0
  const append = async (committed: Record<string, number>) => {
    const n = next++
    const [id, tenant] = [`a-${n}`, `t${n % keys}`]
    const client = await pool.connect()
    await client.query("BEGIN")
    await client.query(text, [id, tenant, JSON.stringify({ event_id: id, type: "tenant.created", tenant_id: tenant })])
    await client.query("COMMIT")
    committed[id] = sharedClock()
    client.release()
  }
  return Promise.resolve({
    /** Answers when each event was committed. */
    work: async (millis) => {
      const committed: Record<string, number> = {}
      const under: Array<Promise<void>> = []
      const start = sharedClock()
      for (let sent = 0; sent < (millis * rate) / 1_000;) {
        const due = Math.min(((sharedClock() - start) * rate) / 1_000, (millis * rate) / 1_000)
        for (; sent < due; sent++) under.push(append(committed))
        await new Promise((resolve) => setTimeout(resolve, 1))
      }
      await Promise.all(under)
      return committed
    },
    close: () => pool.end()
  })
})
