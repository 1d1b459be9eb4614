import { SqlClient } from "@effect/sql"
import { EventType } from "controlpublish"
import { Applier, ArtifactStore, Handlers } from "controlpublish/fleet"
import { FleetMigrations, PostgresAppliedEvents } from "controlpublish/postgres"
import { JetStreamSource } from "controlpublish/jetstream"
import { Effect, Layer, Schema } from "effect"

const PlanChanged = EventType.make("plan.changed", { tenant_id: Schema.String, plan: Schema.Literal("free", "gold") })

const handlers = Handlers.make(
  [PlanChanged],
  {
    "plan.changed": ({ plan, tenant_id }) =>
      Effect.flatMap(SqlClient.SqlClient, (sql) => sql`UPDATE tenants SET plan = ${plan} WHERE id = ${tenant_id}`)
  },
  { otherwise: "skip" }
)

export const Node = Applier.layer(handlers).pipe(
  Layer.provide(JetStreamSource.layer({ servers: ["nats://127.0.0.1:4222"], stream: "control-events" })),
  Layer.provide([PostgresAppliedEvents.layer(), ArtifactStore.layerNone]),
  Layer.provide(FleetMigrations.layer())
)
