import { assert, describe, it } from "@effect/vitest"
import { sql as drizzleSql } from "drizzle-orm"
import { drizzle } from "drizzle-orm/node-postgres"
import { Effect, Layer, Redacted } from "effect"
import Knex from "knex"
import { Kysely, PostgresDialect, sql as kyselySql } from "kysely"
import * as Pg from "pg"
import {
  fromDrizzle,
  fromKnex,
  fromKysely,
  fromPg,
  fromPrisma,
  makeOutbox,
  type Transaction
} from "../../src/promise/index.js"
import { Migrations } from "../../src/postgres/index.js"
import { layerClient, TestDatabase } from "../support/postgres.js"
import { makePrisma } from "./prisma.js"

interface Tx {
  readonly tx: Transaction
  /** A change of the application, in its own library. */
  readonly change: (id: string) => PromiseLike<unknown>
}

/** A library: how an application runs a transaction with it, and a statement outside one. */
interface Library {
  readonly transaction: <A>(run: (tx: Tx) => Promise<A>) => Promise<A>
  readonly outside: Transaction
  readonly end: () => Promise<unknown>
}

const insert = "INSERT INTO tenants (id) VALUES ($1)"

const libraries: Readonly<Record<string, (url: string) => Library>> = {
  pg: (url) => {
    const pool = new Pg.Pool({ connectionString: url, max: 2 })
    return {
      transaction: async (run) => {
        const client = await pool.connect()
        try {
          await client.query("BEGIN")
          const result = await run({ tx: fromPg(client), change: (id) => client.query(insert, [id]) })
          await client.query("COMMIT")
          return result
        } catch (error) {
          await client.query("ROLLBACK")
          throw error
        } finally {
          client.release()
        }
      },
      outside: fromPg(pool),
      end: () => pool.end()
    }
  },
  Drizzle: (url) => {
    const pool = new Pg.Pool({ connectionString: url, max: 2 })
    const db = drizzle(pool)
    return {
      transaction: (run) =>
        db.transaction((tx) =>
          run({
            tx: fromDrizzle(tx, drizzleSql),
            change: (id) => tx.execute(drizzleSql`INSERT INTO tenants (id) VALUES (${id})`)
          })
        ),
      outside: fromDrizzle(db, drizzleSql),
      end: () => pool.end()
    }
  },
  Kysely: (url) => {
    const db = new Kysely<{ tenants: { id: string } }>({
      dialect: new PostgresDialect({ pool: new Pg.Pool({ connectionString: url, max: 2 }) })
    })
    return {
      transaction: (run) =>
        db.transaction().execute((trx) =>
          run({
            tx: fromKysely(trx),
            change: (id) => kyselySql`INSERT INTO tenants (id) VALUES (${id})`.execute(trx)
          })
        ),
      outside: fromKysely(db),
      end: () => db.destroy()
    }
  },
  Knex: (url) => {
    const db = Knex({ client: "pg", connection: url, pool: { min: 0, max: 2 } })
    return {
      transaction: (run) =>
        db.transaction((trx) => run({ tx: fromKnex(trx), change: (id) => trx("tenants").insert({ id }) })),
      outside: fromKnex(db),
      end: () => db.destroy()
    }
  },
  Prisma: (url) => {
    const prisma = makePrisma(url)
    return {
      transaction: (run) =>
        prisma.$transaction((tx) => run({ tx: fromPrisma(tx), change: (id) => tx.$executeRawUnsafe(insert, id) })),
      outside: fromPrisma(prisma),
      end: () => prisma.$disconnect()
    }
  }
}

const rejected = (promise: Promise<unknown>): Promise<object> =>
  promise.then(
    () => assert.fail("it is not rejected"),
    (error: unknown) => error as object
  )

/** Runs a test with a database of its own, in which the outbox has a schema of its own. */
const withDatabase = (test: (url: string) => Promise<void>) =>
  Effect.runPromise(
    Effect.gen(function* () {
      const url = Redacted.value((yield* TestDatabase).url)
      yield* Effect.promise(() => test(url))
    }).pipe(Effect.provide(Migrations.layer({ schema: "events" }).pipe(Layer.provideMerge(layerClient), Layer.orDie)))
  )

describe.each(Object.entries(libraries))("An outbox in transactions of %s", (_, make) => {
  const outbox = makeOutbox({ schema: "events" })

  it("appends with the change or not at all, and rejects what Outbox.append rejects", () =>
    withDatabase(async (url) => {
      const reader = new Pg.Client({ connectionString: url })
      await reader.connect()
      await reader.query("CREATE TABLE tenants (id text PRIMARY KEY)")
      const { end, outside, transaction } = make(url)
      const read = async () => {
        const events = await reader.query<{ event_id: string; key: string; payload: string }>(
          "SELECT event_id, ordering_key AS key, payload_json::text AS payload FROM events.control_events_outbox ORDER BY id"
        )
        const tenants = await reader.query<{ id: string }>("SELECT id FROM tenants ORDER BY id")
        return { tenants: tenants.rows.map(({ id }) => id), events: events.rows }
      }
      const ids = async () => (await read()).events.map(({ event_id }) => event_id)
      const created = (id: string, more: object = {}) => ({
        type: "tenant.created",
        tenant_id: id,
        event_id: id,
        ...more
      })

      try {
        // Committed together, as the event is.
        const text = "\"'\\ ? $1 :name \u2028 ü \ud800"
        const id = await transaction(async ({ change, tx }) => {
          await change("a")
          return await outbox.append(tx, { type: "tenant.created", tenant_id: "a", text, at: 2 ** 53 - 1 })
        })
        const { events, tenants } = await read()
        assert.deepStrictEqual(tenants, ["a"])
        assert.deepStrictEqual([events[0]!.event_id, events[0]!.key], [id, "a"])
        const { created_at, ...payload } = JSON.parse(events[0]!.payload) as Record<string, unknown>
        assert.isString(created_at)
        assert.deepStrictEqual(payload, { type: "tenant.created", tenant_id: "a", text, at: 2 ** 53 - 1, event_id: id })
        await reader.query("TRUNCATE events.control_events_outbox CASCADE; TRUNCATE tenants")

        // Rolled back together.
        const boom = new Error("boom")
        const failed = await rejected(
          transaction(async ({ change, tx }) => {
            await change("b")
            await outbox.append(tx, created("b"))
            throw boom
          })
        )
        assert.strictEqual(failed, boom)
        assert.deepStrictEqual(await read(), { tenants: [], events: [] })

        // Before any change, and many with several keys, in their order.
        await transaction(async ({ change, tx }) => {
          await outbox.append(tx, created("c1"), { orderingKey: "k" })
          assert.deepStrictEqual(await outbox.appendAll(tx, []), [])
          await outbox.appendAll(tx, [created("c3"), created("c2"), created("c4", { tenant_id: "c3" })])
          await change("c")
        })
        assert.deepStrictEqual(await ids(), ["c1", "c3", "c2", "c4"])

        // Errors by their tags. The transaction continues.
        await transaction(async ({ change, tx }) => {
          await change("d")
          const duplicate = { _tag: "DuplicateEventId", eventId: "c1" }
          assert.deepInclude({ ...(await rejected(outbox.append(tx, created("c1")))) }, duplicate)
          const many = outbox.appendAll(tx, [created("d1"), created("c1"), created("d2")])
          assert.deepInclude({ ...(await rejected(many)) }, duplicate)
          const invalid = outbox.append(tx, { ...created("d3"), artifact_ref: "x" })
          assert.deepInclude(
            { ...(await rejected(invalid)) },
            { _tag: "InvalidEvent", eventId: "d3", field: "checksum" }
          )
          const long = outbox.append(tx, created("d4"), { orderingKey: "a\u0000" })
          assert.deepInclude({ ...(await rejected(long)) }, { _tag: "InvalidEvent", field: "orderingKey" })
          await outbox.append(tx, created("d5"))
        })
        assert.deepStrictEqual(await ids(), ["c1", "c3", "c2", "c4", "d5"])

        // Outside a transaction nothing is appended, by one or many.
        for (const append of [
          () => outbox.append(outside, created("e1")),
          () => outbox.appendAll(outside, [created("e1"), created("e2")])
        ]) {
          const error = await rejected(append())
          assert.deepInclude({ ...error }, { _tag: "NotInTransaction" })
        }
        assert.deepStrictEqual(await ids(), ["c1", "c3", "c2", "c4", "d5"])

        // What the database rejects says why.
        const none = makeOutbox({ schema: "none" })
        const error = await rejected(
          transaction(async ({ change, tx }) => {
            await change("f")
            await none.append(tx, created("f"))
          })
        )
        assert.deepInclude({ ...error }, { _tag: "OutboxError", retryable: false })
        assert.match((error as Error).message, /relation "none\.control_events_outbox" does not exist/)
        assert.deepStrictEqual((await read()).tenants, ["c", "d"])
      } finally {
        await end()
        await reader.end()
      }
    }))
})

it("an outbox of declared events takes no others", () => {
  const outbox = makeOutbox<{ type: "plan.changed"; plan: "free" | "gold" }>()
  const compiled = async (tx: Transaction) => {
    await outbox.append(tx, { type: "plan.changed", plan: "gold" })
    // @ts-expect-error: not a value of the field
    await outbox.append(tx, { type: "plan.changed", plan: "lead" })
    // @ts-expect-error: another type
    await outbox.append(tx, { type: "seats.changed", plan: "gold" })
  }
  assert.isFunction(compiled)
})
