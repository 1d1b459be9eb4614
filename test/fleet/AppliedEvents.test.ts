import { assert, describe, it, layer } from "@effect/vitest"
import { SqlClient } from "@effect/sql"
import * as Reactivity from "@effect/experimental/Reactivity"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { Context, Deferred, Effect, Either, Fiber, Layer } from "effect"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { ControlVersion, EventId } from "../../src/index.js"
import { AppliedEvents } from "../../src/fleet/index.js"
import { FleetMigrations, PostgresAppliedEvents } from "../../src/postgres/index.js"
import { SqliteAppliedEvents, SqliteMigrations } from "../../src/sqlite/index.js"
import * as MemoryAppliedEvents from "../../src/testing/MemoryAppliedEvents.js"
import { layerClient, rawClient } from "../support/postgres.js"

const delivery = (id: string, version: number, feed = "feed"): AppliedEvents.Delivery => ({
  eventId: EventId.make(id),
  version: ControlVersion.make(version),
  feed
})

/** What both stores do. Each test has events of its own, and versions after those of the others. */
const laws = (
  test: (name: string, run: (first: number) => Effect.Effect<void, unknown, AppliedEvents.AppliedEvents>) => void
) => {
  test("apply an event once, however often and under whatever version it comes", (first) =>
    Effect.gen(function* () {
      const applied = yield* AppliedEvents.AppliedEvents
      let runs = 0
      const effect = Effect.sync(() => runs++)
      assert.strictEqual(yield* applied.applyOnce(delivery(`a-${first}`, first), effect), "applied")
      assert.strictEqual(yield* applied.applyOnce(delivery(`a-${first}`, first), effect), "skipped")
      assert.strictEqual(yield* applied.applyOnce(delivery(`a-${first}`, first + 5), effect), "skipped")
      assert.strictEqual(runs, 1)
      assert.deepStrictEqual(yield* applied.cursor, { feed: "feed", position: first + 5 })
      assert.isTrue(yield* applied.isApplied(EventId.make(`a-${first}`)))
      assert.isFalse(yield* applied.isApplied(EventId.make(`b-${first}`)))
    }))

  test("apply several events by one effect, which gets those without a mark", (first) =>
    Effect.gen(function* () {
      const applied = yield* AppliedEvents.AppliedEvents
      yield* applied.applyOnce(delivery(`b1-${first}`, first), Effect.void)
      const given: Array<ReadonlyArray<number>> = []
      const all = (ids: ReadonlyArray<string>, from: number) =>
        applied.applyAll(
          ids.map((id, index) => delivery(`${id}-${first}`, from + index)),
          (fresh) => Effect.sync(() => given.push(fresh))
        )
      const outcomes = yield* all(["b1", "b2", "b3", "b2"], first + 1)
      assert.deepStrictEqual(outcomes, ["skipped", "applied", "applied", "skipped"])
      assert.deepStrictEqual(yield* all(["b3", "b2"], first + 5), ["skipped", "skipped"])
      assert.deepStrictEqual(given, [[1, 2]])
      assert.strictEqual((yield* applied.cursor).position, first + 6)
      assert.deepStrictEqual(yield* applied.applyAll([], () => Effect.die("nothing is there")), [])
      const failed = applied.applyAll([delivery(`b4-${first}`, first + 7), delivery(`b5-${first}`, first + 8)], () =>
        Effect.fail("no")
      )
      assert.strictEqual(yield* Effect.flip(failed), "no")
      assert.isFalse(yield* applied.isApplied(EventId.make(`b4-${first}`)))
      assert.strictEqual((yield* applied.cursor).position, first + 6)
    }))

  test("move the cursor only forwards", (first) =>
    Effect.gen(function* () {
      const applied = yield* AppliedEvents.AppliedEvents
      yield* applied.applyOnce(delivery(`new-${first}`, first + 2), Effect.void)
      yield* applied.applyOnce(delivery(`old-${first}`, first + 1), Effect.void)
      assert.strictEqual((yield* applied.cursor).position, first + 2)
    }))

  test("mark nothing of an effect that fails, and pass its error", (first) =>
    Effect.gen(function* () {
      const applied = yield* AppliedEvents.AppliedEvents
      const before = yield* applied.cursor
      const failed = yield* Effect.either(applied.applyOnce(delivery(`f-${first}`, first), Effect.fail("no")))
      assert.deepStrictEqual(failed, Either.left("no"))
      assert.isFalse(yield* applied.isApplied(EventId.make(`f-${first}`)))
      assert.deepStrictEqual(yield* applied.cursor, before)
    }))

  test("let the second of two appliers wait, and skip", (first) =>
    Effect.gen(function* () {
      const applied = yield* AppliedEvents.AppliedEvents
      const begun = yield* Deferred.make<void>()
      const goOn = yield* Deferred.make<void>()
      let runs = 0
      const one = yield* Effect.fork(
        applied.applyOnce(
          delivery(`c-${first}`, first),
          Deferred.succeed(begun, undefined).pipe(
            Effect.zipRight(Deferred.await(goOn)),
            Effect.zipRight(Effect.sync(() => runs++))
          )
        )
      )
      yield* Deferred.await(begun)
      const other = yield* Effect.fork(
        applied.applyOnce(
          delivery(`c-${first}`, first),
          Effect.sync(() => runs++)
        )
      )
      yield* Effect.sleep("100 millis")
      assert.strictEqual(runs, 0)
      assert.isNull(yield* Fiber.poll(other).pipe(Effect.map((exit) => (exit._tag === "None" ? null : exit))))
      yield* Deferred.succeed(goOn, undefined)
      assert.strictEqual(yield* Fiber.join(one), "applied")
      assert.strictEqual(yield* Fiber.join(other), "skipped")
      assert.strictEqual(runs, 1)
    }))

  test("apply what the first of two appliers could not", (first) =>
    Effect.gen(function* () {
      const applied = yield* AppliedEvents.AppliedEvents
      const begun = yield* Deferred.make<void>()
      const goOn = yield* Deferred.make<void>()
      const one = yield* Effect.fork(
        applied.applyOnce(
          delivery(`d-${first}`, first),
          Deferred.succeed(begun, undefined).pipe(
            Effect.zipRight(Deferred.await(goOn)),
            Effect.zipRight(Effect.fail("no"))
          )
        )
      )
      yield* Deferred.await(begun)
      const other = yield* Effect.fork(applied.applyOnce(delivery(`d-${first}`, first), Effect.void))
      yield* Effect.sleep("50 millis")
      yield* Deferred.succeed(goOn, undefined)
      assert.strictEqual(yield* Effect.flip(Fiber.join(one)), "no")
      assert.strictEqual(yield* Fiber.join(other), "applied")
    }))

  test("set an event aside with its reason", (first) =>
    Effect.gen(function* () {
      const applied = yield* AppliedEvents.AppliedEvents
      const event = delivery(`s-${first}`, first)
      assert.strictEqual(yield* applied.setAside(event, "its stack is gone"), "setAside")
      assert.strictEqual(yield* applied.setAside(event, "again"), "skipped")
      assert.strictEqual(yield* applied.applyOnce(event, Effect.die("applied")), "skipped")
      const [newest] = yield* applied.asides({ limit: 1 })
      assert.deepInclude(newest, { eventId: `s-${first}`, version: first, reason: "its stack is gone" })
      assert.strictEqual((yield* applied.cursor).position, first)
    }))

  test("give a position and its marks the feed that they are in, once", (first) =>
    Effect.gen(function* () {
      const applied = yield* AppliedEvents.AppliedEvents
      yield* applied.start({ feed: "", position: first }, Effect.void)
      for (const n of [1, 2]) yield* applied.applyOnce(delivery(`adopted-${first}-${n}`, first + n, ""), Effect.void)
      yield* applied.adopt("feed")
      yield* applied.adopt("other")
      assert.deepStrictEqual(yield* applied.cursor, { feed: "feed", position: first + 2 })
      assert.strictEqual(
        yield* applied.applyOnce(delivery(`adopted-${first}-1`, first + 1), Effect.die("again")),
        "skipped"
      )
      // They are pruned as those of any feed.
      yield* applied.applyOnce(delivery(`adopted-${first}-3`, first + 3), Effect.void)
      yield* Effect.sleep("5 millis")
      const pruned = yield* applied.prune({ keep: 1, olderThan: 0 })
      assert.isAtLeast(pruned, 2)
      assert.isFalse(yield* applied.isApplied(EventId.make(`adopted-${first}-2`)))
      yield* applied.start({ feed: "feed", position: first + 3 }, Effect.void)
    }))

  test("start where a snapshot is, and apply again what it does not hold", (first) =>
    Effect.gen(function* () {
      const applied = yield* AppliedEvents.AppliedEvents
      yield* applied.applyOnce(delivery(`m1-${first}`, first), Effect.void)
      yield* applied.applyOnce(delivery(`m2-${first}`, first + 1), Effect.void)
      const snapshot = { feed: "feed", position: first, pending: [EventId.make(`m3-${first}`)] }
      assert.strictEqual(yield* applied.start(snapshot, Effect.succeed("loaded")), "loaded")
      assert.deepStrictEqual(yield* applied.cursor, { feed: "feed", position: first })
      const comes = (id: string, version: number) => applied.applyOnce(delivery(id, version), Effect.void)
      assert.strictEqual(yield* comes(`m2-${first}`, first + 1), "applied", "the snapshot is older than this event")
      assert.strictEqual(yield* comes(`m3-${first}`, first + 2), "skipped", "the snapshot holds it")
      assert.strictEqual(yield* comes(`m1-${first}`, first + 3), "skipped", "a second copy of one that it holds")
    }))

  test("start with nothing where the snapshot cannot be loaded", (first) =>
    Effect.gen(function* () {
      const applied = yield* AppliedEvents.AppliedEvents
      yield* applied.applyOnce(delivery(`n-${first}`, first + 1), Effect.void)
      const before = yield* applied.cursor
      yield* Effect.flip(applied.start({ feed: "third", position: first }, Effect.fail("no snapshot")))
      assert.deepStrictEqual(yield* applied.cursor, before)
      assert.isTrue(yield* applied.isApplied(EventId.make(`n-${first}`)))
    }))

  test("start from a snapshot of another feed, whose marks say nothing of it", (first) =>
    Effect.gen(function* () {
      const applied = yield* AppliedEvents.AppliedEvents
      yield* applied.applyOnce(delivery(`o-${first}`, first), Effect.void)
      yield* applied.start({ feed: "other", position: first + 1 }, Effect.void)
      assert.isFalse(yield* applied.isApplied(EventId.make(`o-${first}`)))
      yield* applied.start({ feed: "feed", position: first + 1 }, Effect.void)
    }))

  test("go back without applying anything twice, but not behind what has marks", (first) =>
    Effect.gen(function* () {
      const applied = yield* AppliedEvents.AppliedEvents
      yield* applied.start({ feed: "feed", position: first }, Effect.void)
      const ids = [1, 2, 3].map((n) => delivery(`q${n}-${first}`, first + n))
      for (const event of ids) yield* applied.applyOnce(event, Effect.void)
      yield* applied.seek({ feed: "feed", position: first })
      assert.deepStrictEqual(yield* applied.cursor, { feed: "feed", position: first })
      for (const event of ids) assert.strictEqual(yield* applied.applyOnce(event, Effect.void), "skipped")
      yield* Effect.sleep("20 millis")
      assert.isAtLeast(yield* applied.prune({ keep: 2, olderThan: "10 millis" }), 1)
      const error = yield* Effect.flip(applied.seek({ feed: "feed", position: first }))
      assert.deepInclude({ ...error }, { _tag: "MarksPruned", position: first, markedAfter: first + 1 })
      yield* applied.seek({ feed: "feed", position: first + 1 })
      // Going forward says that the node has what is passed.
      yield* applied.seek({ feed: "feed", position: first + 9 })
      assert.strictEqual((yield* Effect.flip(applied.seek({ feed: "feed", position: first + 8 })))._tag, "MarksPruned")
      assert.strictEqual((yield* Effect.flip(applied.seek({ feed: "else", position: first + 10 })))._tag, "MarksPruned")
    }))

  test("keep the marks of a former feed from being pruned by the new feed's versions", (first) =>
    Effect.gen(function* () {
      const applied = yield* AppliedEvents.AppliedEvents
      yield* applied.start({ feed: `A-${first}`, position: 0 }, Effect.void)
      let runs = 0
      const comes = (id: string, version: number, feed: string) =>
        applied.applyOnce(
          delivery(`${id}-${first}`, version, `${feed}-${first}`),
          Effect.sync(() => runs++)
        )
      for (let n = 1; n <= 3; n++) yield* comes(`x${n}`, n, "A")
      yield* applied.seek({ feed: `B-${first}`, position: 0 })
      for (let n = 1; n <= 6; n++) yield* comes(`y${n}`, n, "B")
      assert.strictEqual(yield* comes("x1", 7, "B"), "skipped")
      yield* Effect.sleep("20 millis")
      yield* applied.prune({ keep: 3, olderThan: "10 millis" })
      assert.isFalse(yield* applied.isApplied(EventId.make(`y4-${first}`)), "a mark of this feed is pruned")
      // The events of the former feed come again late.
      for (let n = 1; n <= 3; n++) assert.strictEqual(yield* comes(`x${n}`, 7 + n, "B"), "skipped", `x${n}`)
      assert.strictEqual(runs, 9)
      yield* comes("z", 50, "B")
      yield* applied.prune({ keep: 0, olderThan: "10 millis" })
      assert.isFalse(yield* applied.isApplied(EventId.make(`x2-${first}`)), "its copy in this feed lies far behind")
      yield* applied.start({ feed: "feed", position: first }, Effect.void)
    }))

  test("seek to another feed at a position above 0, and not below it after that", (first) =>
    Effect.gen(function* () {
      const applied = yield* AppliedEvents.AppliedEvents
      yield* applied.start({ feed: `C-${first}`, position: 0 }, Effect.void)
      yield* applied.applyOnce(delivery(`c1-${first}`, 9, `C-${first}`), Effect.void)
      yield* applied.seek({ feed: `D-${first}`, position: 5 })
      assert.deepStrictEqual(yield* applied.cursor, { feed: `D-${first}`, position: 5 })
      yield* applied.applyOnce(delivery(`d6-${first}`, 6, `D-${first}`), Effect.void)
      // The node has what it passed, without marks for it.
      const error = yield* Effect.flip(applied.seek({ feed: `D-${first}`, position: 4 }))
      assert.deepInclude({ ...error }, { _tag: "MarksPruned", position: 4, markedAfter: 5 })
      yield* applied.seek({ feed: `D-${first}`, position: 5 })
      assert.strictEqual(yield* applied.applyOnce(delivery(`d6-${first}`, 6, `D-${first}`), Effect.void), "skipped")
      assert.strictEqual(yield* applied.applyOnce(delivery(`c1-${first}`, 7, `D-${first}`), Effect.void), "skipped")
      yield* applied.start({ feed: "feed", position: first }, Effect.void)
    }))

  test("prune marks that are far and long behind, and no others", (first) =>
    Effect.gen(function* () {
      const applied = yield* AppliedEvents.AppliedEvents
      for (let index = 0; index < 10; index++) {
        yield* applied.applyOnce(delivery(`p-${first}-${index}`, first + index), Effect.void)
      }
      yield* applied.setAside(delivery(`p-${first}-aside`, first + 10), "kept for people")
      yield* Effect.sleep("20 millis")
      const left = Effect.map(
        Effect.forEach(
          Array.from({ length: 10 }, (_, index) => `p-${first}-${index}`),
          (id) => applied.isApplied(EventId.make(id))
        ),
        (found) => found.filter(Boolean).length
      )
      yield* applied.prune({ keep: 0, olderThan: "1 hour" })
      assert.strictEqual(yield* left, 10, "the young stay")
      yield* applied.prune({ keep: 5, olderThan: "10 millis" })
      assert.strictEqual(yield* left, 4, "those near the cursor stay")
      assert.strictEqual(yield* applied.prune({ keep: 0, olderThan: "10 millis", limit: 1 }), 1)
      assert.strictEqual(yield* left, 3)
      yield* applied.prune({ keep: 0, olderThan: "10 millis" })
      assert.strictEqual(yield* left, 0)
      assert.isTrue(yield* applied.isApplied(EventId.make(`p-${first}-aside`)))
    }))
}

/** A database of its own in a file, as a node has it. */
const sqlite = SqliteAppliedEvents.layer.pipe(
  Layer.provide(SqliteMigrations.layer),
  Layer.provideMerge(
    Layer.unwrapScoped(
      Effect.acquireRelease(
        Effect.promise(() => mkdtemp(join(tmpdir(), "controlpublish-sqlite-"))),
        (directory) => Effect.promise(() => rm(directory, { recursive: true }))
      ).pipe(Effect.map((directory) => SqliteClient.layer({ filename: join(directory, "node.db") })))
    )
  )
)

layer(sqlite, { excludeTestServices: true })("AppliedEvents in SQLite", (it) => {
  let first = 0
  laws((name, run) => {
    it.effect(name, () => {
      first += 1_000
      return run(first)
    })
  })

  it.effect("commits the effect, the mark and the cursor together, or nothing", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const applied = yield* AppliedEvents.AppliedEvents
      yield* sql`CREATE TABLE things (id INTEGER PRIMARY KEY)`
      const insert = (id: number) => sql`INSERT INTO things ${sql.insert({ id })}`
      first += 1_000
      yield* applied.applyOnce(delivery("t-1", first), insert(1))
      yield* Effect.flip(applied.applyOnce(delivery("t-2", first + 1), Effect.zipRight(insert(2), Effect.fail("late"))))
      yield* Effect.flip(applied.applyOnce(delivery("t-3", first + 2), Effect.zipRight(insert(3), insert(1))))
      assert.deepStrictEqual(yield* sql`SELECT id FROM things`, [{ id: 1 }])
      assert.strictEqual((yield* applied.cursor).position, first)
      assert.isFalse(yield* applied.isApplied(EventId.make("t-2")))
    })
  )

  it.effect("keeps nothing of an effect that is interrupted", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const applied = yield* AppliedEvents.AppliedEvents
      yield* sql`CREATE TABLE interrupted (id INTEGER)`
      first += 1_000
      const begun = yield* Deferred.make<void>()
      const insert = Effect.zipRight(sql`INSERT INTO interrupted VALUES (1)`, Deferred.succeed(begun, undefined))
      const applying = yield* Effect.fork(
        applied.applyOnce(delivery("i-1", first), Effect.zipRight(insert, Effect.never))
      )
      yield* Deferred.await(begun)
      yield* Fiber.interrupt(applying)
      assert.deepStrictEqual(yield* sql`SELECT * FROM interrupted`, [])
      assert.isFalse(yield* applied.isApplied(EventId.make("i-1")))
    })
  )

  it.effect("touches nothing in a transaction of another client", () =>
    Effect.gen(function* () {
      const applied = yield* AppliedEvents.AppliedEvents
      const other = yield* SqliteClient.make({ filename: ":memory:" }).pipe(Effect.provide(Reactivity.layer))
      first += 1_000
      const error = yield* Effect.flip(other.withTransaction(applied.applyOnce(delivery("o-1", first), Effect.void)))
      assert.deepInclude({ ...error }, { _tag: "AppliedEventsError", reason: "OtherDatabase", retryable: false })
      assert.match(error.message, /is of another client\. Begin the transaction with the node's own client/)
      assert.isFalse(yield* applied.isApplied(EventId.make("o-1")))
    }).pipe(Effect.scoped)
  )

  it.effect("says that a retry helps when another process writes, and applies the event then", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const applied = yield* AppliedEvents.AppliedEvents
      const [main] = yield* sql<{ readonly file: string }>`SELECT file FROM pragma_database_list`
      const other = yield* SqliteClient.make({ filename: main!.file }).pipe(Effect.provide(Reactivity.layer))
      yield* sql`PRAGMA busy_timeout = 50`
      first += 1_000
      const apply = applied.applyOnce(delivery("b-1", first), Effect.void)
      yield* other.unsafe("BEGIN IMMEDIATE")
      const error = yield* Effect.flip(apply)
      yield* other.unsafe("ROLLBACK")
      assert.deepInclude({ ...error }, { _tag: "AppliedEventsError", retryable: true })
      assert.match(error.message, /SQLITE_BUSY/)
      assert.strictEqual(yield* apply, "applied")
    }).pipe(Effect.scoped)
  )

  it.effect("migrates once, and leaves other tables alone", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const before = yield* sql`SELECT name, sql FROM sqlite_master ORDER BY name`
      yield* SqliteMigrations.run
      assert.deepStrictEqual(yield* sql`SELECT name, sql FROM sqlite_master ORDER BY name`, before)
      assert.deepStrictEqual(yield* sql`SELECT migration_id AS id FROM controlpublish_fleet_migrations`, [{ id: 1 }])
    })
  )

  it.effect("says what is missing if it was not migrated", () =>
    Effect.gen(function* () {
      const bare = SqliteAppliedEvents.layer.pipe(Layer.provide(SqliteClient.layer({ filename: ":memory:" })))
      const error = yield* Effect.flip(
        Effect.flatMap(AppliedEvents.AppliedEvents, ({ cursor }) => cursor).pipe(Effect.provide(Layer.fresh(bare)))
      )
      assert.instanceOf(error, AppliedEvents.AppliedEventsError)
      assert.match(error.message, /no such table: applied_position/)
    })
  )
})

describe("AppliedEvents in memory", () => {
  laws((name, run) => {
    it.live(name, () => Effect.provide(run(100), MemoryAppliedEvents.layer))
  })
})

const postgres = PostgresAppliedEvents.layer({ schema: "node" }).pipe(
  Layer.provideMerge(Layer.orDie(FleetMigrations.layer({ schema: "node" }))),
  Layer.provideMerge(layerClient)
)

layer(postgres, { excludeTestServices: true, timeout: 300_000 })("AppliedEvents in PostgreSQL", (it) => {
  let first = 0
  laws((name, run) => {
    it.effect(name, () => {
      first += 1_000
      return run(first)
    })
  })

  it.effect("commits the effect, the mark and the cursor together, or nothing", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const applied = yield* AppliedEvents.AppliedEvents
      yield* sql`CREATE TABLE things (id int PRIMARY KEY)`
      const insert = (id: number) => sql`INSERT INTO things ${sql.insert({ id })}`
      first += 1_000
      yield* applied.applyOnce(delivery("t-1", first), insert(1))
      yield* Effect.flip(applied.applyOnce(delivery("t-2", first + 1), Effect.zipRight(insert(2), Effect.fail("late"))))
      yield* Effect.flip(applied.applyOnce(delivery("t-3", first + 2), Effect.zipRight(insert(3), insert(1))))
      assert.deepStrictEqual(yield* sql`SELECT id FROM things`, [{ id: 1 }])
      assert.strictEqual((yield* applied.cursor).position, first)
      assert.isFalse(yield* applied.isApplied(EventId.make("t-2")))
    })
  )

  it.effect("fails if a statement failed and the effect continued, except in a savepoint", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const applied = yield* AppliedEvents.AppliedEvents
      first += 1_000
      const broken = sql`SELECT 1 / 0`
      const error = yield* Effect.flip(applied.applyOnce(delivery("w-1", first), Effect.ignore(broken)))
      assert.strictEqual(error._tag, "AppliedEventsError")
      assert.isFalse(error.retryable)
      assert.strictEqual(error.reason, "FailedTransaction")
      assert.isFalse(yield* applied.isApplied(EventId.make("w-1")))
      const inSavepoint = Effect.ignore(sql.withTransaction(broken))
      assert.strictEqual(yield* applied.applyOnce(delivery("w-1", first), inSavepoint), "applied")
      assert.isTrue(yield* applied.isApplied(EventId.make("w-1")))
    })
  )

  it.effect("fails if the effect times out its own statement and continues", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const applied = yield* AppliedEvents.AppliedEvents
      first += 1_000
      const slow = sql`SELECT pg_sleep(10)`.pipe(Effect.timeoutOption("100 millis"))
      const error = yield* Effect.flip(applied.applyOnce(delivery("slow-1", first), slow))
      assert.deepInclude({ ...error }, { _tag: "AppliedEventsError", reason: "FailedTransaction", retryable: false })
      assert.isFalse(yield* applied.isApplied(EventId.make("slow-1")))
      assert.notStrictEqual((yield* applied.cursor).position, first)
    })
  )

  it.effect("touches nothing in a transaction of another database", () =>
    Effect.gen(function* () {
      const applied = yield* AppliedEvents.AppliedEvents
      const other = Context.get(yield* Layer.build(Layer.fresh(layerClient)), PgClient.PgClient)
      // The tables are there as well: what runs there would succeed.
      yield* FleetMigrations.run({ schema: "node" }).pipe(Effect.provideService(SqlClient.SqlClient, other))
      first += 1_000
      const event = delivery("foreign-1", first)
      const before = yield* applied.cursor
      const uses = {
        cursor: applied.cursor,
        isApplied: applied.isApplied(event.eventId),
        applyOnce: applied.applyOnce(event, Effect.void),
        applyAll: applied.applyAll([event], () => Effect.void),
        setAside: applied.setAside(event, "no"),
        asides: applied.asides(),
        start: applied.start({ feed: "feed", position: first }, Effect.void),
        seek: applied.seek({ feed: "feed", position: first }),
        prune: applied.prune({ keep: 0, olderThan: 0 })
      }
      for (const [name, use] of Object.entries(uses)) {
        const error = yield* Effect.flip(other.withTransaction(use as Effect.Effect<unknown, unknown>))
        assert.deepInclude({ ...(error as object) }, { _tag: "AppliedEventsError", reason: "OtherDatabase" }, name)
      }
      assert.deepStrictEqual(yield* applied.cursor, before)
      assert.deepStrictEqual(yield* other`SELECT FROM node.applied_events`, [])
      assert.deepStrictEqual(yield* other`SELECT feed FROM node.applied_position`, [{ feed: "" }])
    }).pipe(Effect.scoped)
  )

  it.effect("keeps nothing of an effect that is interrupted", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const applied = yield* AppliedEvents.AppliedEvents
      yield* sql`CREATE TABLE interrupted (id int)`
      const begun = yield* Deferred.make<void>()
      first += 1_000
      const fiber = yield* Effect.fork(
        applied.applyOnce(
          delivery("i-1", first),
          sql`INSERT INTO interrupted VALUES (1)`.pipe(
            Effect.zipRight(Deferred.succeed(begun, undefined)),
            Effect.zipRight(Effect.never)
          )
        )
      )
      yield* Deferred.await(begun)
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(yield* sql`SELECT FROM interrupted`, [])
      assert.isFalse(yield* applied.isApplied(EventId.make("i-1")))
      assert.strictEqual(yield* applied.applyOnce(delivery("i-1", first), Effect.void), "applied")
    })
  )

  it.effect("reports that a retry helps when the connection is lost before the commit", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const applied = yield* AppliedEvents.AppliedEvents
      const outside = yield* rawClient
      first += 1_000
      const error = yield* Effect.flip(
        applied.applyOnce(
          delivery("k-1", first),
          Effect.flatMap(sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`, ([row]) =>
            Effect.promise(() => outside.query("SELECT pg_terminate_backend($1)", [row!.pid]))
          ).pipe(Effect.delay("50 millis"))
        )
      )
      assert.strictEqual((error as AppliedEvents.AppliedEventsError)._tag, "AppliedEventsError")
      assert.isTrue((error as AppliedEvents.AppliedEventsError).retryable)
      // The pool may give the lost connection once more before it learns of its end.
      const again = applied.applyOnce(delivery("k-1", first), Effect.void)
      assert.strictEqual(yield* Effect.retry(again, { times: 5, while: ({ retryable }) => retryable }), "applied")
    }).pipe(Effect.scoped)
  )

  it.effect("prunes while others apply, without a deadlock", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const applied = yield* AppliedEvents.AppliedEvents
      first += 1_000
      const old = delivery("dead-1", first)
      yield* applied.applyOnce(old, Effect.void)
      yield* applied.applyOnce(delivery("dead-2", first + 1), Effect.void)
      yield* Effect.sleep("20 millis")
      // The applier holds the position, prune comes, and then the applier touches the mark.
      const held = yield* Deferred.make<void>()
      const applier = yield* Effect.fork(
        applied.applyOnce(
          delivery("dead-3", first + 2),
          Deferred.succeed(held, undefined).pipe(
            Effect.zipRight(Effect.sleep("300 millis")),
            Effect.zipRight(sql`UPDATE node.applied_events SET applied_at = applied_at WHERE event_id = 'dead-1'`)
          )
        )
      )
      yield* Deferred.await(held)
      const pruned = yield* Effect.fork(applied.prune({ keep: 1, olderThan: "10 millis" }))
      assert.strictEqual(yield* Fiber.join(applier), "applied")
      assert.isAtLeast(yield* Fiber.join(pruned), 1)
    })
  )

  it.effect("migrates once, and prints SQL that makes the same tables", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      assert.deepStrictEqual(yield* FleetMigrations.run({ schema: "node" }), [])
      yield* sql.unsafe(FleetMigrations.print({ schema: "printed" }))
      assert.deepStrictEqual(yield* FleetMigrations.run({ schema: "printed" }), [])
      const columns = (schema: string) =>
        sql`SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = ${schema}
          ORDER BY 1, 2`
      assert.deepStrictEqual(yield* columns("printed"), yield* columns("node"))
    })
  )
})
