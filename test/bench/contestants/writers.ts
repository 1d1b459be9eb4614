// Writers that insert one row a transaction, each as fast as it can: into the outbox, or into a table that has the same
// row and nothing of an outbox.
import * as PgClient from "@effect/sql-pg/PgClient"
import { Effect, Layer, ManagedRuntime, Redacted } from "effect"
import * as Pg from "pg"
import { Outbox } from "../../../src/index.js"
import { Postgres } from "../../../src/postgres/index.js"
import { bareTable, Names } from "../support/outbox.js"
import { contestant, type Task } from "../support/contestant.js"

const keys = 500

const eventOf = (n: number) => ({
  event_id: `w-${process.pid}-${n}`,
  type: "tenant.created",
  tenant_id: `t${n % keys}`,
  created_at: "2026-01-01T00:00:00.000Z",
  note: "x".repeat(150)
})

const insert = (table: string) =>
  `INSERT INTO ${table} (event_id, event_type, tenant_id, payload_json, ordering_key, created_at) VALUES ($1, $2, $3, $4, $3, now())`

const valuesOf = (n: number) => {
  const event = eventOf(n)
  return [event.event_id, event.type, event.tenant_id, JSON.stringify(event)]
}

/** Answers what one transaction is. */
const bySql = (task: Task, table: string) => {
  const pool = new Pg.Pool({ connectionString: task.databaseUrl, max: Number(task.options!.writers) })
  const text = insert(table)
  return {
    transact: async (n: number) => {
      const client = await pool.connect()
      await client.query("BEGIN")
      await client.query(text, valuesOf(n))
      await client.query("COMMIT")
      client.release()
    },
    close: () => pool.end()
  }
}

const byEffect = (task: Task, table: string) => {
  const runtime = ManagedRuntime.make(
    Outbox.layer.pipe(
      Layer.provideMerge(Postgres.layer({ schema: task.schema })),
      Layer.provideMerge(
        PgClient.layer({ url: Redacted.make(task.databaseUrl), maxConnections: Number(task.options!.writers) })
      )
    )
  )
  const text = insert(table)
  const bare = (n: number) =>
    Effect.flatMap(PgClient.PgClient, (sql) => sql.withTransaction(sql.unsafe(text, valuesOf(n))))
  const append = (n: number) =>
    Effect.flatMap(Outbox.Outbox, (outbox) => outbox.withTransaction(outbox.append(eventOf(n))))
  return {
    transact: (n: number): Promise<unknown> =>
      task.options!.into === "outbox" ? runtime.runPromise(append(n)) : runtime.runPromise(bare(n)),
    close: () => runtime.dispose()
  }
}

contestant((task) => {
  const { into, transactions, via, writers } = task.options!
  const table = into === "outbox" ? Names.make(task.schema).outbox : bareTable(task.schema)
  const { close, transact } = via === "sql" ? bySql(task, table) : byEffect(task, table)
  let next = 0
  const work = async () => {
    const last = next + Number(transactions)
    await Promise.all(
      Array.from({ length: Number(writers) }, async () => {
        while (next < last) await transact(next++)
      })
    )
    return {}
  }
  return Promise.resolve({ work, close })
})
