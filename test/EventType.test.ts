import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { EventType } from "../src/index.js"

const PlanChanged = EventType.make("plan.changed", {
  plan: Schema.Literal("free", "gold"),
  seats: Schema.NumberFromString.pipe(Schema.int())
})

describe("EventType", () => {
  it.effect("encodes the declared fields, and decodes them again", () =>
    Effect.gen(function* () {
      const event = yield* PlanChanged.make({ tenant_id: "t1", plan: "gold", seats: 3 })
      assert.deepInclude({ ...event }, { type: "plan.changed", tenant_id: "t1", plan: "gold", seats: "3" })
      assert.isNotEmpty(event.event_id)
      assert.deepStrictEqual(yield* PlanChanged.decode(event), { plan: "gold", seats: 3 })
      assert.isTrue(PlanChanged.is(event))
    })
  )

  it.effect("names the field that breaks its schema, when made and when decoded", () =>
    Effect.gen(function* () {
      const made = yield* Effect.flip(PlanChanged.make({ event_id: "e1", plan: "gold", seats: 1.5 }))
      assert.deepStrictEqual([made.eventId, made.field], ["e1", "seats"])
      const event = yield* PlanChanged.make({ plan: "gold", seats: 3 })
      const decoded = yield* Effect.flip(PlanChanged.decode({ ...event, plan: "lead" }))
      assert.deepStrictEqual([decoded.eventId, decoded.field], [event.event_id, "plan"])
    })
  )

  it.effect("keeps the contract's own rules", () =>
    Effect.gen(function* () {
      const StackActivated = EventType.make("stack.activated", {})
      const invalid = yield* Effect.flip(StackActivated.make({ tenant_id: "t1", stack_id: "s1" }))
      assert.strictEqual(invalid.field, "version")
    })
  )

  it.effect("does not decode another type", () =>
    Effect.gen(function* () {
      const event = yield* EventType.make("other", {}).make({})
      assert.strictEqual((yield* Effect.flip(PlanChanged.decode(event))).field, "type")
      assert.isFalse(PlanChanged.is(event))
    })
  )

  it("types what is made and what is decoded", () => {
    // @ts-expect-error a plan that was not declared
    void PlanChanged.make({ plan: "lead", seats: 1 })
    // @ts-expect-error a declared field is missing
    void PlanChanged.make({ plan: "gold" })
  })
})
