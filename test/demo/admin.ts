import * as PgClient from "@effect/sql-pg/PgClient"
import * as SqlClient from "@effect/sql/SqlClient"
import { Effect, Layer, Random, Redacted } from "effect"
import { Outbox } from "../../src/index.js"
import { FileArtifactStore } from "../../src/file/index.js"
import { Artifacts } from "../../src/fleet/index.js"
import { Migrations, Postgres } from "../../src/postgres/index.js"

const tenants = 8
const plans = ["free", "silver", "gold"]
const regions = ["eu-north", "eu-west", "us-east", "ap-south"]

const rowsArtifact = (table: string, op: "upsert" | "delete", row: object) =>
  new TextEncoder().encode(JSON.stringify({ db: "public", table, op, pk: ["id"], rows: [row] }))

const pick = (values: ReadonlyArray<string>) => Effect.map(Random.nextIntBetween(0, values.length), (n) => values[n]!)

const changeTenant = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const id = `tenant-${yield* Random.nextIntBetween(1, tenants + 1)}`
  const [before] = yield* sql<{ changes: number }>`SELECT changes FROM tenants WHERE id = ${id}`
  const row = { id, name: `Tenant ${id.slice(7)}`, plan: yield* pick(plans), changes: (before?.changes ?? 0) + 1 }
  yield* Artifacts.commit({
    artifact: rowsArtifact("tenants", "upsert", row),
    change: () => sql`
      INSERT INTO tenants ${sql.insert(row)}
      ON CONFLICT (id) DO UPDATE SET name = excluded.name, plan = excluded.plan, changes = excluded.changes`,
    event: () => ({ type: before === undefined ? "tenant.created" : "entitlement.updated", tenant_id: id })
  })
})

const changeStack = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const tenantId = `tenant-${yield* Random.nextIntBetween(1, tenants + 1)}`
  const id = `${tenantId}-stack-${yield* Random.nextIntBetween(1, 4)}`
  const [before] = yield* sql<{ version: number }>`SELECT version FROM stacks WHERE id = ${id}`
  const version = (before?.version ?? 0) + 1
  // Now and then one goes away.
  const gone = version > 1 && (yield* Random.nextIntBetween(0, 10)) === 0
  const row = { id, tenant_id: tenantId, version, region: yield* pick(regions) }
  yield* Artifacts.commit({
    artifact: rowsArtifact("stacks", gone ? "delete" : "upsert", row),
    change: () =>
      gone
        ? sql`DELETE FROM stacks WHERE id = ${id}`
        : sql`
            INSERT INTO stacks ${sql.insert(row)}
            ON CONFLICT (id) DO UPDATE SET version = excluded.version, region = excluded.region`,
    event: () => ({
      type: gone ? "stack.removed" : "stack.activated",
      tenant_id: tenantId,
      stack_id: id,
      version,
      ...(before === undefined ? {} : { base_version: before.version })
    })
  })
})

/** One change after another, each in a transaction with its event. */
export const change = Effect.flatMap(Random.nextBoolean, (tenant) => (tenant ? changeTenant : changeStack))

/** The admin service: its database with the outbox, and its artifacts. */
export const layer = (options: { readonly url: string; readonly artifacts: string }) =>
  Outbox.layer.pipe(
    Layer.provideMerge(Postgres.layer()),
    Layer.provide(Migrations.layer()),
    Layer.provideMerge(FileArtifactStore.layer({ directory: options.artifacts })),
    Layer.provideMerge(PgClient.layer({ url: Redacted.make(options.url), maxConnections: 4 }))
  )
