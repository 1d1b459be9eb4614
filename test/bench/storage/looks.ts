import * as Pg from "pg"
import { quote, type Names } from "../../../src/postgres/internal/names.js"
import { payloadSql } from "../support/outbox.js"
import { median } from "../support/row.js"
import { append, one, outbox, publish, type Server } from "./cycle.js"
import { base } from "./schemas/view.js"
import type { Variant } from "./variant.js"

/** What a look cost, in milliseconds, and the publish before it. */
export interface Found {
  readonly schema: string
  readonly condition: string
  readonly fresh: number
  readonly learnt: number
  readonly perSecond: number
  readonly cpu: number
}

const looks = 11

const milliseconds = async (work: () => Promise<unknown>): Promise<number> => {
  const samples: Array<number> = []
  for (let n = 0; n < looks; n++) {
    const from = performance.now()
    await work()
    samples.push(performance.now() - from)
  }
  return median(samples)
}

/** Rows that were published long ago, made quickly: ids are given, and no trigger fires. */
export const fillPublished = async ({ client }: Server, names: Names, variant: Variant, rows: number) => {
  const { kind } = await one<{ kind: string }>(
    client,
    `SELECT relkind AS kind FROM pg_class WHERE oid = '${names.outbox}'::regclass`
  )
  const inRow = kind !== "v"
  const table = inRow ? names.outbox : base(names)
  await client.query("SET session_replication_role = replica")
  for (let from = 1; from <= rows; from += 100_000) {
    await client.query(
      `INSERT INTO ${table} (id, event_id, event_type, tenant_id, payload_json, ordering_key, created_at${inRow ? ", attempt_count, published_control_version, published_at" : ""})
        SELECT n, 'e-' || n, 'tenant.created', 't' || n % 500, (${payloadSql(500, 150)})::json, 't' || n % 500, now() - interval '8 days'${inRow ? ", 1, n, now() - interval '8 days'" : ""}
        FROM generate_series(${from}, ${Math.min(rows, from + 99_999)}) n`
    )
  }
  await client.query("RESET session_replication_role")
  await client.query(`SELECT setval('${names.sequence}', ${rows})`)
  await client.query(variant.publishAll(names))
  await client.query(`VACUUM ANALYZE ${variant.tables(names).join(", ")}`)
}

/** Publishes under a condition that `prepare` sets and its answer ends, and looks afterwards, before any vacuum. */
const under = async (
  server: Server,
  variant: Variant,
  condition: string,
  options: {
    readonly events: number
    readonly published?: number
    /** Before the events are appended. */
    readonly prepare?: (names: Names, other: Pg.Client) => Promise<unknown>
    /** Before they are published; answers how many of them cannot be. */
    readonly spoil?: (names: Names) => Promise<number>
  }
): Promise<Found> => {
  const { client, databaseUrl } = server
  const names = await outbox(server, variant)
  const other = new Pg.Client({ connectionString: databaseUrl })
  await other.connect()
  try {
    const { events, published = 0 } = options
    if (published > 0) await fillPublished(server, names, variant, published)
    await options.prepare?.(names, other)
    await append(server, names, events, published + 1)
    await client.query(`ANALYZE ${variant.tables(names).join(", ")}`)
    const spoilt = (await options.spoil?.(names)) ?? 0
    const cost = await publish(server, names, variant, events - spoilt)
    const look = variant.look(client, names)
    // What a running pump knows by then: a second look may pass what the first one has waited for.
    await look.learnt()
    const found = {
      schema: variant.name,
      condition,
      learnt: await milliseconds(look.learnt),
      fresh: await milliseconds(look.fresh),
      perSecond: cost.perSecond,
      cpu: cost.cpu
    }
    return found
  } finally {
    await other.end()
    await client.query(`DROP SCHEMA ${quote(names.schema)} CASCADE`)
  }
}

/** The conditions in which a look, or a claim, could have to walk. */
export const conditions = (server: Server, variant: Variant, events: number, published: number) => [
  () => under(server, variant, "nothing else", { events }),
  () => under(server, variant, `${published} published rows`, { events, published }),
  () =>
    under(server, variant, "an old snapshot is held", {
      events,
      prepare: async (_names, other) => {
        await other.query("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await one(other, "SELECT count(*) FROM pg_class")
      }
    }),
  () =>
    under(server, variant, "an append stays open", {
      events,
      prepare: async (names, other) => {
        await other.query("BEGIN")
        await other.query(
          `INSERT INTO ${names.outbox} (event_id, event_type, tenant_id, payload_json) VALUES ('open', 'x', 'open', '{}')`
        )
      }
    }),
  () =>
    under(server, variant, "the head of each lane is parked", {
      events,
      spoil: async (names) => {
        await server.client.query(variant.parkHeads(names))
        return Number(
          (await one<{ lanes: string }>(server.client, `SELECT count(DISTINCT lane) AS lanes FROM ${names.outbox}`))
            .lanes
        )
      }
    })
]
