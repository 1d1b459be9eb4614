import * as Pg from "pg"
import * as Names from "../../../src/postgres/internal/names.js"
import { createOutbox, payloadSql } from "../support/outbox.js"
import { serverCpu } from "./cpu.js"
import type { Variant } from "./variant.js"

const keys = 500
const connections = 4
const appendAtOnce = 5_000

/** A database on which variants run. */
export interface Server {
  readonly databaseUrl: string
  readonly postmaster: string
  /** A superuser's session. */
  readonly client: Pg.Client
  readonly fresh: () => string
}

/** What a phase of a cycle cost, an event. */
export interface Cost {
  readonly perSecond: number
  /** Microseconds of CPU of all processes of the server. */
  readonly cpu: number
  /** Bytes of WAL. */
  readonly wal: number
}

export interface Cycle {
  readonly append: Cost
  /** Of a claim alone: the first batch of each lane, read and given back. */
  readonly claim: Cost
  readonly publish: Cost
  readonly fold: Cost | undefined
  readonly vacuum: Cost
  /** Of removing the event in the end, 1,000 at a time, and of the vacuum after it. */
  readonly remove: Cost
  /** Dead tuples an event, before the vacuum. */
  readonly dead: number
  /** Bytes of tables and of indexes an event, after the vacuum. */
  readonly table: number
  readonly index: number
  /** Updates that were HOT, of those that there were. */
  readonly hot: number | undefined
}

export const one = async <Row extends object>(client: Pg.Client, text: string): Promise<Row> =>
  (await client.query<Row>(text)).rows[0]!

/** Runs a phase and answers what it cost. */
export const cost = async (
  { client, postmaster }: Server,
  events: number,
  work: () => Promise<unknown>
): Promise<Cost> => {
  const lsn = async () =>
    Number((await one<{ bytes: string }>(client, "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn AS bytes")).bytes)
  const wal = await lsn()
  const cpu = await serverCpu(postmaster)
  const from = performance.now()
  await work()
  const seconds = (performance.now() - from) / 1_000
  return {
    perSecond: events / seconds,
    cpu: (((await serverCpu(postmaster)) - cpu) * 1_000) / events,
    wal: ((await lsn()) - wal) / events
  }
}

/** An outbox of a variant, empty. Vacuum runs when it is told to, so that each round has all of it and nobody else's. */
export const outbox = async (server: Server, variant: Variant): Promise<Names.Names> => {
  const names = Names.make(server.fresh())
  await createOutbox(server.databaseUrl, names.schema)
  await server.client.query(variant.create(names))
  for (const table of variant.tables(names)) {
    await server.client.query(`ALTER TABLE ${table} SET (autovacuum_enabled = false)`)
  }
  return names
}

/** Appends through the name that everybody knows, 5,000 rows a transaction. */
export const append = async ({ client }: Server, names: Names.Names, events: number, first = 1): Promise<void> => {
  for (let from = first; from < first + events; from += appendAtOnce) {
    const to = Math.min(from + appendAtOnce, first + events) - 1
    await client.query(
      `INSERT INTO ${names.outbox} (event_id, event_type, tenant_id, payload_json, ordering_key)
        SELECT 'e-' || n, 'tenant.created', 't' || n % ${keys}, (${payloadSql(keys, 150)})::json, 't' || n % ${keys}
        FROM generate_series(${from}, ${to}) n`
    )
  }
}

/** Claims the first batch of each lane and gives it back; answers how many events these were. */
const claimAll = async ({ client }: Server, names: Names.Names, variant: Variant): Promise<number> => {
  const worker = variant.worker(client, names)
  let events = 0
  for (let lane = 0; lane < 64; lane++) {
    const { ids } = await worker.claim(lane)
    if (ids.length === 0) continue
    await worker.release(lane)
    events += ids.length
  }
  return events
}

/** Removes all events as retention does, and vacuums. */
const removeAll = async ({ client }: Server, names: Names.Names, variant: Variant, events: number): Promise<void> => {
  const text = variant.remove(names)
  for (let from = 1; from <= events; from += 1_000) await client.query(text, [from, from + 999])
  await client.query(`VACUUM ${variant.tables(names).join(", ")}`)
}

/** Publishes, and answers what it cost. */
export const publish = async (server: Server, names: Names.Names, variant: Variant, events: number): Promise<Cost> => {
  const clients = Array.from({ length: connections }, () => new Pg.Client({ connectionString: server.databaseUrl }))
  await Promise.all(clients.map((client) => client.connect()))
  let published = 0
  try {
    // The sessions outlive the measurement: of one that has ended the kernel counts whole ticks, and later.
    const found = await cost(server, events, async () => {
      published = await drain(clients, names, variant)
    })
    expect(published === events, `${published} of ${events} events were published`)
    return found
  } finally {
    await Promise.all(clients.map((client) => client.end()))
  }
}

/** Claims and writes back until no lane has rows, as the pump does with four batches in flight and no sink. */
const drain = async (clients: ReadonlyArray<Pg.Client>, names: Names.Names, variant: Variant): Promise<number> => {
  let version = 0
  let published = 0
  let batches = 0
  // Whoever is done with a batch takes the lane that waits longest: batches of a lane follow one another.
  const lanes = Array.from({ length: 64 }, (_, lane) => lane)
  await Promise.all(
    clients.map(async (client) => {
      const worker = variant.worker(client, names)
      const look = variant.look(client, names)
      for (let lane = lanes.shift(); lane !== undefined; lane = lanes.shift()) {
        const claimed = await worker.claim(lane)
        if (claimed.ids.length === 0) continue
        await worker.settle(
          lane,
          claimed,
          claimed.ids.map(() => ++version)
        )
        published += claimed.ids.length
        lanes.push(lane)
        // A pump looks for lanes again once it has been through those that it knows.
        if (++batches % 64 === 0) await look.learnt()
      }
    })
  )
  return published
}

const statistics = async (client: Pg.Client, tables: ReadonlyArray<string>) => {
  // What sessions have counted is told when they end, or a second later.
  await client.query("SELECT pg_stat_force_next_flush()")
  return one<Record<"dead" | "updates" | "hot" | "table" | "index", string>>(
    client,
    `SELECT sum(n_dead_tup) AS dead, sum(n_tup_upd) AS updates, sum(n_tup_hot_upd) AS hot,
        sum(pg_table_size(relid)) AS table, sum(pg_indexes_size(relid)) AS index
      FROM pg_stat_user_tables WHERE relid = ANY (ARRAY[${tables.map(Names.literal).join()}]::regclass[]::oid[])`
  )
}

const expect = (condition: boolean, message: string) => {
  if (!condition) throw new Error(`What was measured is wrong: ${message}`)
}

/** That everything is published, each under a version of its own, in the order of its key. */
export const verify = async (client: Pg.Client, names: Names.Names, events: number): Promise<void> => {
  const found = await one<Record<"rows" | "versions" | "disorder", string>>(
    client,
    `SELECT count(*) AS rows, count(DISTINCT version) AS versions, count(*) FILTER (WHERE version < before) AS disorder
      FROM (SELECT version, lag(version) OVER (PARTITION BY ordering_key ORDER BY id) AS before
        FROM (SELECT id, ordering_key, published_control_version AS version FROM ${names.outbox} OFFSET 0) rows) ordered`
  )
  expect(Number(found.rows) === events, `${found.rows} rows for ${events} events`)
  expect(Number(found.versions) === events, `${found.versions} versions for ${events} events`)
  expect(Number(found.disorder) === 0, `${found.disorder} events overtook one of their key`)
}

/** One round: append, publish, fold where the variant does, vacuum. */
export const cycle = async (server: Server, variant: Variant, events: number): Promise<Cycle> => {
  const { client } = server
  const names = await outbox(server, variant)
  const tables = variant.tables(names)
  await client.query("CHECKPOINT")
  const appended = await cost(server, events, () => append(server, names, events))
  // As autovacuum would have done by then.
  await client.query(`ANALYZE ${tables.join(", ")}`)
  // The first ones read rows that nobody has read.
  const claimable = await claimAll(server, names, variant)
  const claiming = await cost(server, claimable, () => claimAll(server, names, variant))
  const publishing = await publish(server, names, variant, events)
  const fold = variant.fold
  const folding = fold && (await cost(server, events, () => fold(client, names)))
  const before = await statistics(client, tables)
  const vacuum = await cost(server, events, () => client.query(`VACUUM ${tables.join(", ")}`))
  const after = await statistics(client, tables)
  await verify(client, names, events)
  await client.query(`ANALYZE ${tables.join(", ")}`)
  const removing = await cost(server, events, () => removeAll(server, names, variant, events))
  await client.query(`DROP SCHEMA ${Names.quote(names.schema)} CASCADE`)
  return {
    append: appended,
    claim: claiming,
    publish: publishing,
    fold: folding,
    vacuum,
    remove: removing,
    dead: Number(before.dead) / events,
    table: Number(after.table) / events,
    index: Number(after.index) / events,
    hot: Number(before.updates) === 0 ? undefined : Number(before.hot) / Number(before.updates)
  }
}
