// Appends until it is stopped, as a program of Effect with clients of two databases, whose transactions are interrupted, and
// tells what it knows: `node clientsWriter.mjs URL NAME FROM`, one line of JSON before each commit and one after it.
import * as PgClient from "@effect/sql-pg/PgClient"
import { Cause, Effect, Exit, Layer, Random, Redacted, Schedule } from "effect"
import { writeSync } from "node:fs"
import { Outbox } from "../../src/index.js"
import { Postgres } from "../../src/postgres/index.js"

const [, , url = "", name, from] = process.argv

const tell = (line: object) => Effect.sync(() => writeSync(1, `${JSON.stringify(line)}\n`))

const client = (url: string) => Layer.fresh(PgClient.layer({ url: Redacted.make(url), maxConnections: 5 }))

/** A database without an outbox, on the same server. */
const elsewhere = () => {
  const other = new URL(url)
  other.pathname = other.pathname === "/postgres" ? "/template1" : "/postgres"
  return other.href
}

const transaction = (outbox: Outbox.Outbox["Type"], other: PgClient.PgClient, number: number) =>
  Effect.gen(function* () {
    const kept: Array<{ id: string; key: string }> = []
    const dropped: Array<string> = []
    let events = 0
    const event = (keep: boolean) =>
      Effect.gen(function* () {
        const id = `${name}-${number}-${++events}`
        const isShared = (yield* Random.nextIntBetween(0, 3)) === 0
        const key = isShared
          ? `shared-${yield* Random.nextIntBetween(0, 5)}`
          : `${name}-${yield* Random.nextIntBetween(0, 8)}`
        if (keep) kept.push({ id, key })
        else dropped.push(id)
        return { event_id: id, type: "tenant.created", tenant_id: key, number }
      })
    if ((yield* Random.nextIntBetween(0, 3)) === 0) {
      const exit = yield* Effect.exit(other.withTransaction(Effect.flatMap(event(false), outbox.append)))
      if (Exit.isSuccess(exit))
        return yield* Effect.dieMessage("An append in a transaction of another database succeeded")
    }
    const count = yield* Random.nextIntBetween(1, 5)
    const append = Effect.gen(function* () {
      for (let left = count; left > 0; left--) yield* outbox.append(yield* event(true))
      yield* tell({ writer: name, number, kept, dropped, end: "unknown" })
    })
    const end = yield* Random.nextIntBetween(0, 8)
    const rolledBack = { _tag: "RolledBack" } as const
    const work = end === 0 ? Effect.zipRight(append, Effect.fail(rolledBack)) : append
    const patience = end === 1 ? yield* Random.nextIntBetween(0, 20) : 20_000
    const exit = yield* Effect.exit(Effect.timeout(outbox.withTransaction(work), patience))
    if (Exit.isFailure(exit) && Cause.isDie(exit.cause)) return yield* Effect.failCause(exit.cause)
    const isRolledBack =
      Exit.isFailure(exit) && Array.from(Cause.failures(exit.cause)).some((error) => error === rolledBack)
    yield* tell({
      writer: name,
      number,
      kept,
      dropped,
      end: Exit.isSuccess(exit) ? "committed" : isRolledBack ? "rolledBack" : "unknown"
    })
    yield* Effect.sleep(yield* Random.nextIntBetween(0, 10))
  })

const program = Effect.gen(function* () {
  const outbox = yield* Outbox.Outbox
  const other = yield* Effect.provide(PgClient.PgClient, yield* Layer.build(client(elsewhere())))
  for (let number = Number(from); ; number++) yield* transaction(outbox, other, number)
}).pipe(
  Effect.scoped,
  Effect.provide(Layer.provide(Outbox.layer, Layer.provide(Postgres.layer(), client(url)))),
  // The database may be away.
  Effect.retry(Schedule.spaced("100 millis"))
)

Effect.runFork(program)
