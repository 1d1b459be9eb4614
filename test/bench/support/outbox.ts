import * as PgClient from "@effect/sql-pg/PgClient"
import { jetstreamManager } from "@nats-io/jetstream"
import { connect } from "@nats-io/transport-node"
import { Effect, Redacted } from "effect"
import * as Pg from "pg"
import { Migrations } from "../../../src/postgres/index.js"
import * as Names from "../../../src/postgres/internal/names.js"

export { Names }

export const withClient = async <A>(databaseUrl: string, use: (client: Pg.Client) => Promise<A>): Promise<A> => {
  const client = new Pg.Client({ connectionString: databaseUrl })
  await client.connect()
  try {
    return await use(client)
  } finally {
    await client.end()
  }
}

/** An outbox in a schema of its own, empty. */
export const createOutbox = (databaseUrl: string, schema: string): Promise<unknown> =>
  Effect.runPromise(
    Migrations.run({ schema }).pipe(Effect.provide(PgClient.layer({ url: Redacted.make(databaseUrl) })), Effect.scoped)
  )

export const dropSchema = (databaseUrl: string, schema: string): Promise<unknown> =>
  withClient(databaseUrl, (client) => client.query(`DROP SCHEMA ${Names.quote(schema)} CASCADE`))

export const bareTable = (schema: string): string => `${Names.quote(schema)}.bare`

/** The table of an outbox, with its columns and indexes and without its triggers. */
export const createBareTable = (databaseUrl: string, schema: string): Promise<unknown> =>
  withClient(databaseUrl, async (client) => {
    const sequence = `${Names.quote(schema)}.bare_id`
    await client.query(`CREATE SEQUENCE ${sequence}`)
    await client.query(`CREATE TABLE ${bareTable(schema)} (LIKE ${Names.make(schema).outbox} INCLUDING ALL)`)
    await client.query(`ALTER TABLE ${bareTable(schema)} ALTER COLUMN id SET DEFAULT nextval('${sequence}')`)
  })

/** The payload of event `n`, about 280 bytes, as SQL. */
export const payloadSql = (keys: number, note: number) =>
  `'{"event_id":"e-' || n || '","type":"tenant.created","tenant_id":"t' || n % ${keys} || '","created_at":"2026-01-01T00:00:00.000Z","note":"' || repeat('x', ${note}) || '"}'`

/** The same of one key, not as SQL. */
export const payloadOf = (n: number) =>
  `{"event_id":"e-${n}","type":"tenant.created","tenant_id":"t0","created_at":"2026-01-01T00:00:00.000Z","note":"${"x".repeat(150)}"}`

/** Appends events by one statement: what is measured is how they are published. */
export const fill = (
  databaseUrl: string,
  schema: string,
  options: {
    readonly events: number
    readonly keys: number
    readonly note?: number
    /** Whether they were published, more than a week ago. */
    readonly published?: boolean
    /** The number of the first one. Default 1. */
    readonly first?: number
  }
): Promise<void> =>
  withClient(databaseUrl, async (client) => {
    const { events, first = 1, keys, note = 150, published = false } = options
    const { outbox } = Names.make(schema)
    const marks = published ? ", published_control_version, published_at" : ""
    // In parts, as a server with little memory would have it.
    const last = first + events - 1
    for (let from = first; from <= last; from += 100_000) {
      await client.query(
        `INSERT INTO ${outbox} (event_id, event_type, tenant_id, payload_json, ordering_key${marks})
          SELECT 'e-' || n, 'tenant.created', 't' || n % ${keys}, (${payloadSql(keys, note)})::json, 't' || n % ${keys}
            ${published ? ", n, now() - interval '8 days'" : ""}
          FROM generate_series(${from}, ${Math.min(last, from + 99_999)}) n`
      )
    }
    await client.query(`VACUUM ANALYZE ${outbox}`)
    await client.query("CHECKPOINT")
  })

/** Marks what is pending as published, as if a pump had been there. */
export const publishRest = (databaseUrl: string, schema: string): Promise<unknown> =>
  withClient(databaseUrl, async (client) => {
    const { outbox } = Names.make(schema)
    await client.query(
      `UPDATE ${outbox} SET published_control_version = id, published_at = now() WHERE published_at IS NULL`
    )
    await client.query(`VACUUM ${outbox}`)
  })

/** An empty stream on file storage, on subjects that begin with its name. */
export const createStream = async (natsUrl: string, stream: string): Promise<void> => {
  const nc = await connect({ servers: natsUrl })
  // Servers that have no atomic batches ignore it.
  await (await jetstreamManager(nc)).streams.add({ name: stream, subjects: [`${stream}.>`], allow_atomic: true })
  await nc.close()
}

export const deleteStream = async (natsUrl: string, stream: string): Promise<void> => {
  const nc = await connect({ servers: natsUrl })
  await (await jetstreamManager(nc)).streams.delete(stream)
  await nc.close()
}

/** How many messages the stream has. */
export const stored = async (natsUrl: string, stream: string): Promise<number> => {
  const nc = await connect({ servers: natsUrl })
  const { state } = await (await jetstreamManager(nc)).streams.info(stream)
  await nc.close()
  return state.messages
}

const assert = (condition: boolean, message: string) => {
  if (!condition) throw new Error(`What was measured is wrong: ${message}`)
}

/** That the stream holds each event once, and, where there is an outbox, in the order of its keys and as recorded. */
export const verify = async (options: {
  readonly databaseUrl: string
  readonly natsUrl: string
  readonly stream: string
  readonly events: number
  /** Absent: only the count is looked at. */
  readonly schema?: string
}): Promise<void> => {
  const { databaseUrl, events, natsUrl, schema, stream } = options
  const nc = await connect({ servers: natsUrl })
  const manager = await jetstreamManager(nc)
  const { state } = await manager.streams.info(stream)
  assert(state.messages === events, `${state.messages} messages for ${events} events`)
  if (schema !== undefined) {
    const sequences = new Map<string, number>()
    const consumer = await manager.jetstream().consumers.get(stream, { headers_only: true })
    const messages = await consumer.consume({ max_messages: 10_000 })
    for await (const message of messages) {
      sequences.set(message.headers!.get("Nats-Msg-Id"), message.seq)
      if (message.info.pending === 0) break
    }
    await messages.close()
    assert(sequences.size === events, `${sequences.size} ids for ${events} events`)
    await withClient(databaseUrl, async (client) => {
      const last = new Map<string, number>()
      const { rows } = await client.query<{ event_id: string; ordering_key: string; version: string | null }>(
        `SELECT event_id, ordering_key, published_control_version AS version FROM ${Names.make(schema).outbox} ORDER BY id`
      )
      assert(rows.length === events, `${rows.length} rows for ${events} events`)
      for (const row of rows) {
        const version = Number(row.version)
        assert(sequences.get(row.event_id) === version, `${row.event_id} is recorded as ${row.version}`)
        assert(version > (last.get(row.ordering_key) ?? 0), `${row.event_id} overtook one of its key`)
        last.set(row.ordering_key, version)
      }
    })
  }
  await nc.close()
}
