import { PgClient } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Schema } from "effect"
import { expectTypeOf } from "vitest"
import { EventType, Outbox, Pump, PumpConfig, TypedOutbox, type EventId, type OutboxStore } from "../src/index.js"
import { Handlers } from "../src/fleet/index.js"
import { Migrations, Postgres } from "../src/postgres/index.js"
import { MemoryOutboxStore, MemorySink } from "../src/testing/index.js"
import { layerClient } from "./support/postgres.js"

const PlanChanged = EventType.make("plan.changed", { plan: Schema.Literal("free", "gold") })
const SeatsChanged = EventType.make("seats.changed", { seats: Schema.NumberFromString.pipe(Schema.int()) })
const Other = EventType.make("other.changed", { plan: Schema.Literal("free", "gold") })

const group = EventType.group(PlanChanged, SeatsChanged)

class AppOutbox extends TypedOutbox.Tag<AppOutbox>()("test/AppOutbox", group) {}

const layer = Layer.mergeAll(AppOutbox.layer, Outbox.layer, Pump.layerManual).pipe(
  Layer.provideMerge(Layer.mergeAll(MemorySink.layer, MemoryOutboxStore.layer, PumpConfig.layerDefaults))
)

const feed = Effect.gen(function* () {
  yield* Effect.flatMap(Pump.Pump, (pump) => pump.drain)
  const entries = yield* Effect.flatMap(MemorySink.MemorySink, (sink) => sink.feed)
  return entries.map(({ event }) => ({
    type: event.type,
    tenant: event.tenant_id,
    plan: event.plan,
    seats: event.seats
  }))
})

describe("TypedOutbox", () => {
  it.effect("appends events of declared types, their fields encoded", () =>
    Effect.gen(function* () {
      const outbox = yield* AppOutbox
      const result = yield* outbox.transaction(Effect.succeed("changed"), (changed) =>
        Effect.gen(function* () {
          assert.strictEqual(changed, "changed")
          yield* outbox.publish(PlanChanged, { tenant_id: "t1", plan: "gold" })
          const ids = yield* outbox.publishAll([
            [SeatsChanged, { tenant_id: "t1", seats: 3, event_id: "e1" }],
            [PlanChanged, { tenant_id: "t1", plan: "free", event_id: "e2" }]
          ])
          assert.deepStrictEqual(ids.map(String), ["e1", "e2"])
        })
      )
      assert.strictEqual(result, "changed")
      assert.deepStrictEqual(yield* feed, [
        { type: "plan.changed", tenant: "t1", plan: "gold", seats: undefined },
        { type: "seats.changed", tenant: "t1", plan: undefined, seats: "3" },
        { type: "plan.changed", tenant: "t1", plan: "free", seats: undefined }
      ])
    }).pipe(Effect.provide(layer))
  )

  it.effect("keeps neither the change nor the event if one of them fails", () =>
    Effect.gen(function* () {
      const outbox = yield* AppOutbox
      const append = outbox.publish(PlanChanged, { plan: "gold" })
      const invalid = outbox.publish(SeatsChanged, { seats: 1.5 })
      const error = yield* outbox.transaction(append, invalid).pipe(Effect.flip)
      assert.deepInclude({ ...error }, { _tag: "InvalidEvent", field: "seats" })
      assert.strictEqual(yield* outbox.transaction(append, () => Effect.fail("no")).pipe(Effect.flip), "no")
      assert.deepStrictEqual(yield* feed, [])
    }).pipe(Effect.provide(layer))
  )

  it.effect("has errors that are caught one by one", () =>
    Effect.gen(function* () {
      const outbox = yield* AppOutbox
      const publish = outbox.publish(PlanChanged, { plan: "gold", event_id: "e1" })
      const caught = (append: typeof publish) =>
        append.pipe(
          Effect.catchTags({
            NotInTransaction: () => Effect.succeed("not in a transaction"),
            DuplicateEventId: ({ eventId }) => Effect.succeed(`duplicate ${eventId}`),
            InvalidEvent: ({ field }) => Effect.succeed(`invalid ${field}`),
            OutboxError: ({ retryable }) => Effect.succeed(`retryable ${retryable}`)
          })
        )
      expectTypeOf(caught(publish)).toEqualTypeOf<Effect.Effect<string | EventId.EventId>>()
      assert.strictEqual(yield* caught(publish), "not in a transaction")
      assert.strictEqual(yield* outbox.withTransaction(Effect.zipRight(publish, caught(publish))), "duplicate e1")
    }).pipe(Effect.provide(layer))
  )

  it("rejects two types of one name", () => {
    assert.throws(
      () => EventType.group(PlanChanged, EventType.make("plan.changed", {})),
      /two event types.*"plan.changed"/
    )
  })

  it("does not compile with types and fields that the group has not", () => {
    const typed = (outbox: AppOutbox["Type"]) => {
      // @ts-expect-error: not of the group, though its fields are those of one that is
      void outbox.publish(Other, { plan: "gold" })
      // @ts-expect-error: not a value of the field
      void outbox.publish(PlanChanged, { plan: "lead" })
      // @ts-expect-error: a field is missing
      void outbox.publish(SeatsChanged, { tenant_id: "t1" })
      // @ts-expect-error: a field of another type
      void outbox.publish(PlanChanged, { plan: "gold", seats: 3 })
      // @ts-expect-error: the fields of another type
      void outbox.publishAll([[SeatsChanged, { plan: "gold" }]])
      // @ts-expect-error: an event without its type
      void outbox.publish({ type: "plan.changed", plan: "gold" })
    }
    assert.isFunction(typed)
    expectTypeOf(AppOutbox.layer).toEqualTypeOf<Layer.Layer<AppOutbox, never, OutboxStore.OutboxStore>>()
  })

  it.effect("gives its types to the handlers of nodes", () =>
    Effect.gen(function* () {
      const handlers = Handlers.make(group.types, {
        "plan.changed": ({ plan }) => Effect.sync(() => void seen.push(plan)),
        "seats.changed": ({ seats }) => Effect.sync(() => void seen.push(seats))
      })
      const seen: Array<string | number> = []
      const event = { ...(yield* SeatsChanged.make({ seats: 7 })), control_version: 1 as never }
      yield* handlers.handle({ event, artifact: undefined })
      assert.deepStrictEqual(seen, [7])
    })
  )
})

class Billing extends TypedOutbox.Tag<Billing>()("test/Billing", EventType.group(PlanChanged)) {}
class Tenants extends TypedOutbox.Tag<Tenants>()("test/Tenants", EventType.group(SeatsChanged)) {}

/** A database of its own with its outbox, and the client of it. */
const inDatabase = <Self>(Outbox: { readonly layer: Layer.Layer<Self, never, OutboxStore.OutboxStore> }) =>
  Layer.build(
    Layer.fresh(
      Outbox.layer.pipe(
        Layer.provide(Postgres.layer()),
        Layer.provide(Migrations.layer()),
        Layer.provideMerge(layerClient),
        Layer.orDie
      )
    )
  )

describe("Typed outboxes of two databases", () => {
  it.scopedLive("each append in transactions of their own database, and fail in the other's", () =>
    Effect.gen(function* () {
      const ofBilling = yield* inDatabase(Billing)
      const ofTenants = yield* inDatabase(Tenants)
      const [billing, tenants] = [Context.get(ofBilling, Billing), Context.get(ofTenants, Tenants)]
      const sql = {
        billing: Context.get(ofBilling, PgClient.PgClient),
        tenants: Context.get(ofTenants, PgClient.PgClient)
      }
      const rows = ({ unsafe }: PgClient.PgClient) =>
        Effect.map(unsafe<{ type: string }>("SELECT event_type AS type FROM control_events_outbox"), (rows) =>
          rows.map(({ type }) => type)
        )

      const plan = billing.publish(PlanChanged, { plan: "gold" })
      const seats = tenants.publish(SeatsChanged, { seats: 3 })
      yield* sql.billing.withTransaction(plan)
      yield* tenants.transaction(sql.tenants`SELECT 1`, seats)

      const wrong = yield* Effect.flip(sql.tenants.withTransaction(plan))
      assert.deepInclude({ ...wrong }, { _tag: "NotInTransaction", reason: "OtherDatabase" })
      // A transaction of the one within one of the other commits neither.
      const nested = yield* Effect.flip(billing.withTransaction(Effect.zipRight(plan, tenants.withTransaction(seats))))
      assert.deepInclude({ ...nested }, { _tag: "OutboxError", reason: "OtherDatabase" })
      const mistaken = yield* Effect.flip(billing.transaction(plan, seats))
      assert.deepInclude({ ...mistaken }, { _tag: "NotInTransaction", reason: "OtherDatabase" })

      assert.deepStrictEqual(yield* rows(sql.billing), ["plan.changed"])
      assert.deepStrictEqual(yield* rows(sql.tenants), ["seats.changed"])
    })
  )
})
