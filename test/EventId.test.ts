import { assert, describe, it } from "@effect/vitest"
import { Effect, Random, TestClock } from "effect"
import { EventId } from "../src/index.js"

const generate = (millis: number, seed: string) =>
  TestClock.setTime(millis).pipe(Effect.zipRight(EventId.generate), Effect.withRandom(Random.make(seed)))

describe("EventId", () => {
  it.effect("generates a UUIDv7 whose time is the Clock's", () =>
    Effect.gen(function* () {
      const millis = Date.parse("2026-05-06T07:08:09.010Z")
      const id = yield* generate(millis, "a")
      assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
      assert.strictEqual(Number.parseInt(id.replaceAll("-", "").slice(0, 12), 16), millis)
    })
  )

  it.effect("depends only on Clock and Random", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* generate(1, "a"), yield* generate(1, "a"))
      assert.notStrictEqual(yield* generate(1, "a"), yield* generate(1, "b"))
      assert.isTrue((yield* generate(1, "z")) < (yield* generate(2, "a")))
    })
  )

  it.effect("generates different ids at one instant", () =>
    Effect.gen(function* () {
      const ids = yield* Effect.replicateEffect(EventId.generate, 1000)
      assert.strictEqual(new Set(ids).size, 1000)
    })
  )
})
