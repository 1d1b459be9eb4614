import * as Reactivity from "@effect/experimental/Reactivity"
import * as PgClient from "@effect/sql-pg/PgClient"
import { SqlClient, SqlError } from "@effect/sql"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Duration, Effect, Exit, Fiber, Layer, Option, Redacted } from "effect"
import { Outbox } from "../../src/index.js"
import { ArtifactStore, Artifacts } from "../../src/fleet/index.js"
import { Migrations, PostgresArtifacts, PostgresSnapshot } from "../../src/postgres/index.js"
import { postgresMeter } from "../support/meter.js"
import { layerClient, layerOutbox, rawClient, TestDatabase } from "../support/postgres.js"

const layer = Outbox.layer.pipe(
  Layer.provideMerge(layerOutbox("public")),
  Layer.provideMerge(layerClient),
  Layer.provideMerge(ArtifactStore.layerMemory)
)

const count = Effect.flatMap(PgClient.PgClient, (sql) =>
  Effect.map(sql<{ n: number }>`SELECT count(*)::int AS n FROM control_events_outbox`, ([row]) => row!.n)
)

/** A client of another database, which has an outbox as well: what is appended there by mistake succeeds. */
const otherDatabase = Effect.gen(function* () {
  const other = Context.get(yield* Layer.build(Layer.fresh(layerClient)), PgClient.PgClient)
  yield* Migrations.run().pipe(
    Effect.provideService(PgClient.PgClient, other),
    Effect.provideService(SqlClient.SqlClient, other)
  )
  return other
})

const clientOf = (url: URL, maxConnections?: number) =>
  PgClient.make({ url: Redacted.make(url.href), maxConnections }).pipe(Effect.provide(Reactivity.layer))

const databaseUrl = Effect.map(TestDatabase, ({ url }) => new URL(Redacted.value(url)))

/** A row that stands for the change of the application. */
const changes = Effect.tap(PgClient.PgClient, (sql) => sql`CREATE TABLE changes (id int)`)

const changed = Effect.flatMap(PgClient.PgClient, (sql) =>
  Effect.map(sql<{ id: number }>`SELECT id FROM changes ORDER BY id`, (rows) => rows.map(({ id }) => id))
)

/** An open transaction that has appended an event of no tenant: others of that key wait. */
const blocker = Effect.gen(function* () {
  const client = yield* rawClient
  const run = (text: string) => Effect.promise(() => client.query(text))
  const block = Effect.zipRight(
    run("BEGIN"),
    run(`INSERT INTO control_events_outbox (event_id, event_type, payload_json) VALUES ('blocks', 'x', '{}')`)
  )
  return { block, unblock: run("ROLLBACK") }
})

/** Makes each INSERT into the outbox, or each row of it, take so long. */
const slowInserts = (seconds: string, each: "STATEMENT" | "ROW" = "STATEMENT") =>
  Effect.flatMap(PgClient.PgClient, (sql) =>
    sql.unsafe(`
      CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(${seconds}); RETURN NULL; END';
      CREATE TRIGGER slow AFTER INSERT ON control_events_outbox FOR EACH ${each} EXECUTE FUNCTION slow()`)
  )

/** How many ids were drawn, by transactions that were rolled back too. */
const drawn = Effect.flatMap(PgClient.PgClient, (sql) =>
  Effect.map(
    sql<{ last: string }>`SELECT last_value AS last FROM pg_sequences
      WHERE sequencename LIKE 'control_events_outbox%' AND last_value IS NOT NULL`,
    ([row]) => Number(row?.last ?? 0)
  )
)

const many = Array.from({ length: 12_000 }, (_, n) => ({ type: "x", n }))

/** Rounds at different moments. 120 of them found appends that were committed in part. */
const interruptions = Number(process.env.INTERRUPTIONS ?? 12)

const lostCommit = (exit: Exit.Exit<unknown, unknown>) =>
  Exit.isFailure(exit) &&
  Option.exists(
    Cause.dieOption(exit.cause),
    (defect) => defect instanceof SqlError.SqlError && String(defect.cause).startsWith("LostCommit")
  )

describe("The database of an append", () => {
  it.scopedLive("an append in another database's transaction fails, and writes nothing", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      const other = yield* otherDatabase
      const inOther = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.flip(other.withTransaction(effect))
      const reason = "OtherDatabase"
      const appends: ReadonlyArray<Effect.Effect<unknown, Outbox.AppendError>> = [
        outbox.append({ type: "x" }),
        outbox.appendAll([{ type: "x" }, { type: "y" }])
      ]
      for (const append of appends) {
        assert.deepInclude({ ...(yield* inOther(append)) }, { _tag: "NotInTransaction", reason })
      }
      assert.deepInclude({ ...(yield* inOther(outbox.withTransaction(Effect.void))) }, { _tag: "OutboxError", reason })
      const commit = Artifacts.commit({
        artifact: new Uint8Array([1]),
        change: () => Effect.die("changed the other database"),
        event: () => ({ type: "x" })
      })
      assert.deepInclude({ ...(yield* inOther(commit)) }, { _tag: "OutboxError", reason })
      // What asks the outbox asks its own database, too: a sweep would take every artifact for unused.
      for (const asks of [
        Effect.asVoid(PostgresArtifacts.inOutbox()(["a"])),
        Effect.asVoid(PostgresSnapshot.take({ newest: 0 }))
      ]) {
        assert.deepInclude({ ...(yield* inOther(asks)) }, { _tag: "OutboxError", reason })
      }
      assert.strictEqual(yield* count, 0)
      assert.deepStrictEqual(yield* other`SELECT FROM control_events_outbox`, [])
    }).pipe(Effect.provide(layer))
  )

  it.scopedLive("another client of the same database is as good, whatever address it uses", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      const url = yield* databaseUrl
      const meter = yield* postgresMeter(url)
      const otherName = new URL(url)
      otherName.hostname = url.hostname === "localhost" ? "127.0.0.1" : "localhost"
      for (const [index, address] of [url, otherName, meter.url].entries()) {
        const client = yield* clientOf(address, 1)
        yield* client.withTransaction(outbox.append({ type: "x" }))
        assert.strictEqual(yield* count, index + 1, address.host)
        yield* meter.take
        for (let n = 0; n < 3; n++)
          yield* Effect.flip(client.withTransaction(Effect.zipRight(outbox.append({ type: "x" }), Effect.fail("no"))))
      }
      // The server was asked once for the connection: what is left is BEGIN, INSERT and ROLLBACK.
      assert.deepStrictEqual(yield* meter.take, { statements: 9, roundTrips: 9 })
    }).pipe(Effect.provide(layer))
  )

  it.scopedLive("an append says that its transaction is read-only or has failed", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      const sql = yield* PgClient.PgClient
      const append = outbox.append({ type: "x" })
      const readOnly = yield* Effect.flip(sql.withTransaction(Effect.zipRight(sql`SET TRANSACTION READ ONLY`, append)))
      assert.deepInclude({ ...readOnly }, { _tag: "OutboxError", reason: "ReadOnlyTransaction" })
      const failed = yield* Effect.flip(sql.withTransaction(Effect.zipRight(Effect.ignore(sql`SELECT 1/0`), append)))
      assert.deepInclude({ ...failed }, { _tag: "OutboxError", reason: "FailedTransaction" })
    }).pipe(Effect.provide(layer))
  )
})

describe("An interrupted append", () => {
  const timedOut = (outbox: Outbox.Outbox["Type"]) =>
    outbox.append({ type: "x" }).pipe(Effect.timeoutOption("200 millis"))

  it.scopedLive("whose statement ends soon appends nothing, and the transaction goes on", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      const sql = yield* changes
      const { block, unblock } = yield* blocker
      yield* block
      const transaction = yield* Effect.fork(
        sql.withTransaction(
          Effect.gen(function* () {
            yield* sql`INSERT INTO changes VALUES (1)`
            const appended = yield* timedOut(outbox)
            yield* sql`INSERT INTO changes VALUES (2)`
            return appended
          })
        )
      )
      yield* Effect.sleep("600 millis")
      yield* unblock
      assert.isTrue(Option.isNone(yield* Fiber.join(transaction)))
      assert.deepStrictEqual(yield* changed, [1, 2])
      assert.strictEqual(yield* count, 0)
      assert.isAbove(yield* drawn, 1, "the row was inserted before it was taken back")
    }).pipe(Effect.provide(layer))
  )

  it.scopedLive("whose statement goes on waiting fails the commit, that of sql.withTransaction too", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      const sql = yield* changes
      const { block, unblock } = yield* blocker
      yield* block
      const program = Effect.zipRight(sql`INSERT INTO changes VALUES (1)`, timedOut(outbox))
      const [own, nested, plain, deep] = yield* Effect.all(
        [
          Effect.exit(outbox.withTransaction(program)),
          Effect.exit(outbox.withTransaction(outbox.withTransaction(program))),
          Effect.exit(sql.withTransaction(program)),
          Effect.exit(sql.withTransaction(sql.withTransaction(program)))
        ],
        { concurrency: "unbounded" }
      )
      for (const exit of [own, nested]) {
        const error = Option.getOrThrow(
          Cause.failureOption(Option.getOrThrow(Exit.causeOption<unknown, unknown>(exit)))
        )
        assert.deepInclude({ ...(error as object) }, { _tag: "OutboxError", reason: "FailedTransaction" })
      }
      assert.isTrue(lostCommit(plain), String(plain))
      assert.isTrue(lostCommit(deep), String(deep))
      yield* unblock
      assert.deepStrictEqual([yield* changed, yield* count], [[], 0])
    }).pipe(Effect.provide(layer))
  )

  it.scopedLive("in a nested transaction that is rolled back leaves the one around as it was", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      const sql = yield* changes
      const { block, unblock } = yield* blocker
      yield* block
      const attempt = (inner: Effect.Effect<unknown, unknown>) =>
        Effect.zipRight(sql`INSERT INTO changes VALUES (1)`, Effect.timeoutOption(inner, "200 millis"))
      const append = outbox.append({ type: "x" })
      for (const appended of [
        yield* sql.withTransaction(attempt(sql.withTransaction(append))),
        yield* outbox.withTransaction(attempt(outbox.withTransaction(append)))
      ]) {
        assert.isTrue(Option.isNone(appended))
      }
      yield* unblock
      assert.deepStrictEqual([yield* changed, yield* count], [[1, 1], 0])
    }).pipe(Effect.provide(layer))
  )

  it.scopedLive("with its whole transaction ends cleanly, and the connection is as good as before", () =>
    Effect.gen(function* () {
      const outbox = yield* Outbox.Outbox
      const { block, unblock } = yield* blocker
      yield* block
      const sql = yield* clientOf(yield* databaseUrl, 2)
      const [took, exit] = yield* Effect.timed(
        Effect.exit(sql.withTransaction(outbox.append({ type: "x" })).pipe(Effect.timeout("200 millis")))
      )
      assert.isTrue(Exit.isFailure(exit) && Option.exists(Cause.failureOption(exit.cause), Cause.isTimeoutException))
      assert.isBelow(Duration.toMillis(took), 10_000)
      const fiber = yield* Effect.fork(sql.withTransaction(outbox.append({ type: "x" })))
      yield* Effect.sleep("100 millis")
      const interrupted = yield* Fiber.interrupt(fiber)
      assert.isTrue(Exit.isFailure(interrupted) && Cause.isInterruptedOnly(interrupted.cause), String(interrupted))
      yield* unblock
      for (let n = 0; n < 4; n++) yield* sql.withTransaction(outbox.append({ type: "x" }))
      assert.strictEqual(yield* count, 4)
    }).pipe(Effect.provide(layer))
  )

  it.scopedLive(
    "of several statements is taken back whole in the middle, and another one beside it stays",
    () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        const sql = yield* PgClient.PgClient
        yield* slowInserts("0.3")
        const [cut, whole] = yield* sql.withTransaction(
          Effect.all([Effect.timeoutOption(outbox.appendAll(many), "500 millis"), outbox.appendAll(many)], {
            concurrency: "unbounded"
          })
        )
        assert.isTrue(Option.isNone(cut))
        assert.strictEqual(yield* count, 12_000)
        const left = yield* sql<{ id: string }>`SELECT event_id AS id FROM control_events_outbox ORDER BY id`
        assert.deepStrictEqual(new Set(left.map(({ id }) => id)), new Set<string>(whole))
        const cutRows = (yield* drawn) - 12_000
        assert.isTrue(cutRows > 0 && cutRows < 12_000, `${cutRows} rows were inserted before the interruption`)
      }).pipe(Effect.provide(layer)),
    300_000
  )

  it.scopedLive(
    "of several statements, one of which takes long, is committed in no part",
    () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        const sql = yield* changes
        // From the second statement on.
        yield* slowInserts(`CASE WHEN NEW.id > 5000 THEN 10 ELSE 0 END`, "ROW")
        const outside = yield* clientOf(yield* databaseUrl)
        const inSecond = drawn.pipe(
          Effect.provideService(PgClient.PgClient, outside),
          Effect.delay("50 millis"),
          Effect.repeat({ until: (ids) => ids > 5_000 }),
          // Outside of the transaction.
          Effect.forkDaemon
        )
        const second = yield* inSecond
        const exit = yield* Effect.exit(
          sql.withTransaction(Effect.raceFirst(outbox.appendAll(many), Fiber.join(second)))
        )
        assert.isTrue(lostCommit(exit), String(exit))
        assert.isAtLeast(yield* drawn, 5_000)
        assert.strictEqual(yield* count, 0)
      }).pipe(Effect.provide(layer)),
    300_000
  )

  it.scopedLive(
    "is all or none whenever it comes",
    () =>
      Effect.gen(function* () {
        const outbox = yield* Outbox.Outbox
        const sql = yield* changes
        const seen = new Set<string>()
        for (let round = 0; round < interruptions; round++) {
          const before = yield* count
          const exit = yield* Effect.exit(
            sql.withTransaction(
              Effect.zipRight(
                sql`INSERT INTO changes VALUES (${round})`,
                Effect.timeoutOption(outbox.appendAll(many), 50 + ((60 * round) % 900))
              )
            )
          )
          const added = (yield* count) - before
          const kept = (yield* changed).includes(round)
          assert.strictEqual(added, Exit.isSuccess(exit) && Option.isSome(exit.value) ? 12_000 : 0)
          assert.strictEqual(kept, Exit.isSuccess(exit), "success says that the change is committed")
          seen.add(added === 0 ? "none" : "all")
        }
        assert.isTrue(seen.has("none"))
      }).pipe(Effect.provide(layer)),
    60_000 + 3_000 * interruptions
  )
})
