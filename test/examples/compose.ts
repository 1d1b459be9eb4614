import { SqlClient } from "@effect/sql"
import { Outbox, Pump, PumpConfig } from "controlpublish"
import { Migrations, Postgres } from "controlpublish/postgres"
import { FileSink } from "controlpublish/file"
import { Effect, Layer } from "effect"

export const createTenant = Effect.fn("createTenant")(function* (id: string) {
  const sql = yield* SqlClient.SqlClient
  const outbox = yield* Outbox.Outbox
  const change = sql`INSERT INTO tenants (id) VALUES (${id})`
  const event = outbox.append({ type: "tenant.created", tenant_id: id })
  return yield* sql.withTransaction(Effect.zipRight(change, event))
})

export const ControlPublish = Layer.merge(Outbox.layer, Pump.layer).pipe(
  Layer.provide([Postgres.layer(), FileSink.layer({ directory: "feed" }), PumpConfig.layerDefaults]),
  Layer.provide(Migrations.layer())
)
