import { SqlClient } from "@effect/sql"
import { EventType, TypedOutbox } from "controlpublish"
import { Effect, Schema } from "effect"

const PlanChanged = EventType.make("plan.changed", { plan: Schema.Literal("free", "gold"), seats: Schema.Int })

export class AppOutbox extends TypedOutbox.Tag<AppOutbox>()("app/Outbox", EventType.group(PlanChanged)) {}

export const upgrade = Effect.fn("upgrade")(function* (tenant: string, seats: number) {
  const sql = yield* SqlClient.SqlClient
  const outbox = yield* AppOutbox
  const change = sql`UPDATE tenants SET plan = 'gold' WHERE id = ${tenant}`
  yield* outbox.transaction(change, outbox.publish(PlanChanged, { tenant_id: tenant, plan: "gold", seats }))
})
