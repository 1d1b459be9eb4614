import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, FastCheck, Schema, TestClock } from "effect"
import { ControlEvent, ControlVersion } from "../src/index.js"

const checksum = `sha256:${"0a".repeat(32)}`

const stackActivated = {
  event_id: "e1",
  type: "stack.activated",
  tenant_id: "t1",
  stack_id: "s1",
  version: 3,
  base_version: 2,
  artifact_ref: "stacks/s1/3",
  checksum,
  created_at: "2026-01-02T03:04:05Z"
}

const without = (name: string) => Object.fromEntries(Object.entries(stackActivated).filter(([field]) => field !== name))

const fieldOf = (value: unknown): string | undefined =>
  Either.match(ControlEvent.validate(value), { onLeft: (invalid) => invalid.field, onRight: () => undefined })

describe("ControlEvent", () => {
  it("accepts a complete event and returns the same value", () => {
    assert.strictEqual(Either.getOrThrow(ControlEvent.validate(stackActivated)), stackActivated as never)
  })

  it.prop(
    "says of any value what the schema says",
    [
      FastCheck.dictionary(
        FastCheck.constantFrom(...Object.keys(stackActivated), "control_version", "note"),
        FastCheck.oneof(
          FastCheck.constantFrom<unknown>(
            ...Object.values(stackActivated),
            undefined,
            null,
            "",
            "a\u0000",
            "\ud800",
            0,
            -1,
            1.5,
            2 ** 53,
            {}
          ),
          FastCheck.anything()
        )
      ),
      FastCheck.subarray(Object.keys(stackActivated))
    ],
    ([changed, kept]) => {
      const value = {
        ...Object.fromEntries(Object.entries(stackActivated).filter(([name]) => kept.includes(name))),
        ...changed
      }
      assert.strictEqual(
        Either.isRight(ControlEvent.validate(value)),
        Schema.is(ControlEvent.ControlEvent, { exact: true })(value)
      )
    },
    { fastCheck: { numRuns: 2_000 } }
  )

  it("accepts every known type", () => {
    for (const type of ControlEvent.knownTypes) assert.isUndefined(fieldOf({ ...stackActivated, type }))
  })

  it.each([
    ["an empty event_id", { ...stackActivated, event_id: "" }, "event_id"],
    ["no event_id", without("event_id"), "event_id"],
    ["an event_id with a NUL", { ...stackActivated, event_id: "a\u0000b" }, "event_id"],
    ["an event_id with a lone surrogate", { ...stackActivated, event_id: "a\ud800" }, "event_id"],
    ["an event_id longer than an index entry", { ...stackActivated, event_id: "é".repeat(513) }, "event_id"],
    ["an empty type", { ...stackActivated, type: "" }, "type"],
    ["a type that is no string", { ...stackActivated, type: 7 }, "type"],
    ["artifact_ref without checksum", without("checksum"), "checksum"],
    ["a malformed checksum", { ...stackActivated, checksum: "sha256:123" }, "checksum"],
    ["a checksum of another kind", { ...stackActivated, checksum: `md5:${"0".repeat(64)}` }, "checksum"],
    ["stack.activated without tenant", without("tenant_id"), "tenant_id"],
    ["stack.activated without stack", without("stack_id"), "stack_id"],
    ["stack.activated without version", without("version"), "version"],
    ["a fractional version", { ...stackActivated, version: 1.5 }, "version"],
    ["a version beyond 2^53", { ...stackActivated, version: 2 ** 53 }, "version"],
    ["a tenant_id of null", { ...stackActivated, tenant_id: null }, "tenant_id"],
    ["a created_at that is no time", { ...stackActivated, created_at: "yesterday" }, "created_at"],
    ["a created_at without offset", { ...stackActivated, created_at: "2026-01-02T03:04:05" }, "created_at"],
    ["a created_at in no month", { ...stackActivated, created_at: "2026-13-02T03:04:05Z" }, "created_at"],
    ["a control_version of 0", { ...stackActivated, control_version: 0 }, "control_version"],
    ["an array", [stackActivated], ""],
    ["null", null, ""],
    ["a string", "stack.activated", ""]
  ])("refuses %s and names the field", (_, value, field) => {
    assert.strictEqual(fieldOf(value), field)
  })

  it("never quotes a value in an error", () => {
    for (const name of Object.keys(ControlEvent.fields)) {
      const result = ControlEvent.validate({ ...stackActivated, [name]: { password: "hunter2" } })
      const invalid = Either.getOrThrow(Either.flip(result))
      assert.strictEqual(invalid.field, name)
      assert.notInclude(JSON.stringify(invalid) + invalid.message, "hunter2")
    }
  })

  it("has a control version if and only if it is published", () => {
    const published = { ...stackActivated, control_version: 7 }
    assert.isTrue(Either.isRight(ControlEvent.validatePublished(published)))
    assert.isTrue(Either.isLeft(ControlEvent.validatePublished(stackActivated)))
    assert.isTrue(Either.isRight(ControlEvent.validateUnpublished(stackActivated)))
    const refused = Either.getOrThrow(Either.flip(ControlEvent.validateUnpublished(published)))
    assert.deepStrictEqual([refused.field, refused.eventId], ["control_version", "e1"])
  })

  it.prop(
    "keeps further fields untouched on the way to the feed",
    [FastCheck.dictionary(FastCheck.string({ unit: "binary" }), FastCheck.jsonValue()), FastCheck.integer({ min: 1 })],
    ([further, version]) => {
      const event = { ...further, ...stackActivated }
      const text = Either.getOrThrow(ControlEvent.encode(Either.getOrThrow(ControlEvent.validate(event))))
      const feed: unknown = JSON.parse(ControlEvent.withControlVersion(text, ControlVersion.make(version)))
      const expected: unknown = JSON.parse(JSON.stringify({ ...event, control_version: version }))
      assert.deepStrictEqual(feed, expected)
    }
  )

  it("adds the control version to the text and changes nothing else", () => {
    const text = ` { "event_id" : "e1", "big": 12345678901234567890, "n": 1.0 }\n`
    assert.strictEqual(
      ControlEvent.withControlVersion(text, ControlVersion.make(5)),
      ` { "event_id" : "e1", "big": 12345678901234567890, "n": 1.0,"control_version":5}`
    )
  })

  it("rejects what JSON cannot represent", () => {
    const event = Either.getOrThrow(ControlEvent.validate({ ...stackActivated, big: 1n }))
    assert.strictEqual(Either.getOrThrow(Either.flip(ControlEvent.encode(event))).eventId, "e1")
  })

  it.effect("make adds the id and the time from the services, and overwrites neither", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(Date.parse("2026-05-06T07:08:09.010Z"))
      const made = yield* ControlEvent.make({ type: "tenant.created", tenant_id: "t1", plan: "gold" })
      assert.strictEqual(made.created_at, "2026-05-06T07:08:09.010Z")
      assert.match(made.event_id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
      assert.strictEqual(made.plan, "gold")
      const { event_id, ...rest } = stackActivated
      const given = yield* ControlEvent.make({ ...rest, event_id })
      assert.deepStrictEqual<unknown>(given, stackActivated)
    })
  )

  it.effect("make treats null as a value, not as absent", () =>
    Effect.gen(function* () {
      const invalid = yield* Effect.flip(ControlEvent.make({ type: "x", event_id: null as unknown as string }))
      assert.strictEqual(invalid.field, "event_id")
    })
  )

  it.effect("make fails with the first invalid event of many", () =>
    Effect.gen(function* () {
      const invalid = yield* Effect.flip(
        ControlEvent.makeAll([{ type: "a" }, { type: "", event_id: "second" }, { type: "" }])
      )
      assert.deepStrictEqual([invalid.eventId, invalid.field], ["second", "type"])
    })
  )
})
