import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, FiberId } from "effect"
import * as Pg from "pg"
import { vi } from "vitest"
import { makePool } from "../../src/postgres/internal/session.js"
import { layerClient } from "../support/postgres.js"

describe("Sessions", () => {
  it.scopedLive("come back to the pool when whoever asked is interrupted just as the connection is there", () =>
    Effect.gen(function* () {
      const { config } = yield* PgClient.PgClient
      const session = yield* makePool(config, 1, () => {})
      let interrupt = () => {}
      type Callback = (...results: Array<unknown>) => void
      const connect = Reflect.get(Pg.Pool.prototype, "connect") as Callback
      const interrupting = function (this: Pg.Pool, callback: Callback) {
        Reflect.apply(connect, this, [
          (...results: Array<unknown>) => {
            callback(...results)
            interrupt()
          }
        ])
      }
      const spied = vi.spyOn(Pg.Pool.prototype, "connect").mockImplementation(interrupting as never)
      yield* Effect.addFinalizer(() => Effect.sync(() => spied.mockRestore()))
      for (let n = 0; n < 3; n++) {
        const asking = yield* Effect.fork(Effect.scoped(session))
        interrupt = () => asking.unsafeInterruptAsFork(FiberId.none)
        assert.isTrue(Exit.isInterrupted(yield* Fiber.await(asking)))
      }
      interrupt = () => {}
      // It is the only one that the pool may have.
      const rows = yield* Effect.scoped(Effect.flatMap(session, ({ query }) => query("SELECT 1 AS one"))).pipe(
        Effect.timeout("5 seconds")
      )
      assert.deepStrictEqual(rows, [{ one: 1 }])
    }).pipe(Effect.provide(layerClient))
  )
})
