// Appends until it is stopped, by SQL as any program would, and tells what it knows: `node writer.mjs URL NAME FROM`,
// one line of JSON before each commit and one after it.
import { writeSync } from "node:fs"
import * as Pg from "pg"

const [, , url, name, from] = process.argv

const tell = (line: object) => writeSync(1, `${JSON.stringify(line)}\n`)

const pick = (count: number) => Math.floor(Math.random() * count)

const pause = (millis: number) => new Promise((resolve) => setTimeout(resolve, millis))

const connect = async (): Promise<Pg.Client> => {
  for (;;) {
    const client = new Pg.Client({ connectionString: url, connectionTimeoutMillis: 2_000, query_timeout: 20_000 })
    client.on("error", () => {})
    try {
      await client.connect()
      return client
    } catch {
      await pause(100)
    }
  }
}

const run = async () => {
  let client = await connect()
  for (let number = Number(from); ; number++) {
    const kept: Array<{ id: string; key: string }> = []
    const dropped: Array<string> = []
    let events = 0
    const insert = async (keep: boolean) => {
      const id = `${name}-${number}-${++events}`
      // Some keys are this writer's own, some are everybody's.
      const key = pick(3) === 0 ? `shared-${pick(5)}` : `${name}-${pick(8)}`
      const payload = JSON.stringify({ event_id: id, type: "tenant.created", tenant_id: key, number })
      if (keep) kept.push({ id, key })
      else dropped.push(id)
      await client.query(
        "INSERT INTO control_events_outbox (event_id, event_type, tenant_id, payload_json) VALUES ($1, 'tenant.created', $2, $3)",
        [id, key, payload]
      )
    }
    const end = pick(8) === 0 ? "rolledBack" : "committed"
    try {
      await client.query("BEGIN")
      for (let left = 1 + pick(4); left > 0; left--) await insert(true)
      if (pick(5) === 0) {
        await client.query("SAVEPOINT s")
        await insert(false)
        await client.query("ROLLBACK TO s")
        await insert(true)
      }
      if (pick(20) === 0) await pause(pick(300))
      tell({ writer: name, number, kept, dropped, end: "unknown" })
      await client.query(end === "committed" ? "COMMIT" : "ROLLBACK")
      tell({ writer: name, number, kept, dropped, end })
    } catch (error) {
      // A deadlock rolls back; a connection that is lost says nothing.
      const rolledBack = error instanceof Pg.DatabaseError && error.code === "40P01"
      tell({ writer: name, number, kept, dropped, end: rolledBack ? "rolledBack" : "unknown" })
      if (rolledBack) await client.query("ROLLBACK")
      else {
        await client.end().catch(() => {})
        client = await connect()
      }
    }
    await pause(pick(10))
  }
}

run().catch((error: unknown) => {
  console.error(error)
  process.exit(1)
})
