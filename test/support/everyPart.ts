import * as PgClient from "@effect/sql-pg/PgClient"
import { assert } from "@effect/vitest"
import { Array as Arr, Context, Effect, Layer, Logger, LogLevel, Option, Redacted, Stream } from "effect"
import * as RowsArtifact from "../../src/cli/internal/rowsArtifact.js"
import { AppliedEvents } from "../../src/fleet/index.js"
import { Outbox, OutboxAdmin, OutboxStore, Pump, PumpConfig, Retention, type ControlEvent } from "../../src/index.js"
import {
  FleetMigrations,
  Migrations,
  Postgres,
  PostgresAppliedEvents,
  PostgresArtifacts,
  PostgresOutboxAdmin,
  PostgresSnapshot
} from "../../src/postgres/index.js"
import { MemorySink } from "../../src/testing/index.js"
import { eventually } from "./pump.js"
import { connectTo, failureOf } from "./roles.js"

/** The database's URL for each role that the product has. */
export interface Urls {
  /** By SQL. */
  readonly insert: string
  /** By `Outbox.append`. */
  readonly append: string
  readonly pump: string
  readonly operate: string
  readonly view: string
  readonly node: string
}

export const sameForAll = (url: string): Urls => ({
  insert: url,
  append: url,
  pump: url,
  operate: url,
  view: url,
  node: url
})

const clientOf = (url: string) => Layer.orDie(PgClient.layer({ url: Redacted.make(url), maxConnections: 5 }))

const silent = Logger.minimumLogLevel(LogLevel.None)

const by = { actor: "ann", reason: "test" }

const insert = (id: string, tenant: string, payload = `{"event_id":"${id}","type":"x","tenant_id":"${tenant}"}`) =>
  `INSERT INTO "public".control_events_outbox (event_id, event_type, tenant_id, payload_json) VALUES ('${id}', 'x', '${tenant}', '${payload}')`

export const appendBySql = (url: string) =>
  Effect.scoped(
    Effect.gen(function* () {
      const client = yield* connectTo(url)
      const begin = "BEGIN READ WRITE"
      assert.isUndefined(yield* failureOf(client, `${begin}; ${insert("sql", "t1")}; COMMIT`))
      // No event of the contract: it is parked.
      assert.isUndefined(yield* failureOf(client, `${begin}; ${insert("invalid", "t2", "{}")}; COMMIT`))
    })
  )

export const appendByProgram = (url: string, ids: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const outbox = yield* Outbox.Outbox
    const event = (id: string): ControlEvent.Input => ({ event_id: id, type: "x", tenant_id: id })
    const [first = "", ...others] = ids
    yield* outbox.withTransaction(outbox.append(event(first)))
    yield* outbox.withTransaction(outbox.appendAll(others.map(event)))
    // A serializable transaction may be told to try again.
    const duplicate = yield* outbox
      .withTransaction(outbox.appendAll([event("new"), event(first)]))
      .pipe(
        Effect.retry({ while: (error) => error._tag === "OutboxError" && error.retryable, times: 100 }),
        Effect.flip
      )
    assert.strictEqual(duplicate._tag, "DuplicateEventId")
  }).pipe(
    Effect.provide(
      Outbox.layer.pipe(Layer.provide(Postgres.layer()), Layer.provide(clientOf(url)), Layer.provide(silent))
    )
  )

/** Everything that a pump does: publishing when it is woken, failing, parking, waiting, looking, retention. */
const pump = (urls: Urls) =>
  Effect.gen(function* () {
    // As serve does: nothing is missing, and nothing is created.
    assert.deepStrictEqual(yield* Effect.provide(Migrations.run(), clientOf(urls.pump)), [])
    const config = PumpConfig.layer({ pollPeriod: "1 hour" })
    const context = yield* Layer.build(
      Layer.mergeAll(
        Pump.layer.pipe(Layer.provideMerge(MemorySink.layer), Layer.provide(config)),
        Retention.layerManual({ keep: { _tag: "Count", count: 1 } }).pipe(Layer.provide(PostgresOutboxAdmin.layer()))
      ).pipe(Layer.provideMerge(Postgres.layer()), Layer.provide(clientOf(urls.pump)), Layer.provide(silent))
    )
    const store = Context.get(context, OutboxStore.OutboxStore)
    const sink = Context.get(context, MemorySink.MemorySink)
    // A sink that takes its time, while the pump's transaction is idle.
    yield* sink.script((batch, publish) => Effect.delay(publish(batch), "400 millis"))
    const published = Effect.map(sink.feed, (entries) => entries.map(({ eventId }): string => eventId).sort())
    const isPublished = (...ids: ReadonlyArray<string>) =>
      eventually(
        `published: ${ids.join()}`,
        Effect.map(published, (found) => ids.every((id) => found.includes(id)))
      )
    yield* isPublished("sql", "a", "b", "c")
    // It is idle now, and does not poll.
    yield* sink.failEvent("woken", { times: 1 })
    yield* appendByProgram(urls.append, ["woken", "d", "e"])
    yield* isPublished("woken", "d", "e")
    const { oldestPendingAt, ...backlog } = yield* store.backlog({ limit: 100 })
    assert.isUndefined(oldestPendingAt)
    assert.deepStrictEqual(backlog, {
      pending: { value: 0, exact: true },
      waiting: { value: 0, exact: true },
      parked: { value: 1, exact: true }
    })
    assert.deepStrictEqual(
      (yield* store.parked({ limit: 10 })).map(({ eventId }) => eventId),
      ["invalid"]
    )
    assert.deepStrictEqual((yield* store.redrive(["invalid"])).map(String), ["invalid"])
    yield* eventually(
      "the redriven event is parked again",
      Effect.map(store.backlog({ limit: 10 }), ({ parked, pending }) => parked.value === 1 && pending.value === 0)
    )
    assert.strictEqual(yield* Context.get(context, Retention.Retention).runNow(by), 6)
    const { failures, lastError } = yield* Context.get(context, Pump.Pump).status
    assert.strictEqual(failures, 0, lastError?.message)
  }).pipe(Effect.provide(silent))

export const look = (url: string) =>
  Effect.gen(function* () {
    yield* Migrations.check()
    const admin = yield* OutboxAdmin.OutboxAdmin
    const overview = yield* admin.overview({ limit: 100 })
    assert.deepInclude(overview, { pending: { value: 0, exact: true }, parked: { value: 1, exact: true } })
    for (const filter of [
      {},
      { state: "parked", type: "x" },
      { state: "pending", tenantId: "t2" },
      { state: "waiting" },
      { state: "published", since: 0, until: 1e15 },
      { state: "parked", orderingKey: "t2" },
      { eventId: "invalid" }
    ] as ReadonlyArray<OutboxAdmin.EventFilter>) {
      const page = yield* admin.events(filter, { limit: 10 })
      assert.strictEqual(
        page.events.some(({ eventId }) => eventId === "invalid"),
        filter.state === undefined || filter.state === "parked"
      )
    }
    const { createdAt } = Option.getOrThrow(yield* admin.event("invalid"))
    assert.isBelow(Math.abs(Date.now() - createdAt), 600_000)
    assert.isDefined(yield* admin.identity())
    const { pieces } = yield* admin.payload("invalid")
    assert.strictEqual(Buffer.concat(Array.from(yield* Stream.runCollect(pieces))).toString(), "{}")
    yield* admin.audit({ limit: 10 })
    yield* admin.pumps()
  }).pipe(Effect.provide(Layer.provideMerge(PostgresOutboxAdmin.layer(), clientOf(url))))

export const operate = (url: string) =>
  Effect.gen(function* () {
    yield* Migrations.check()
    const admin = yield* OutboxAdmin.OutboxAdmin
    assert.strictEqual(yield* admin.redrive({ state: "parked" }, by), 1)
    yield* admin.park("invalid", by)
    assert.strictEqual(yield* admin.redrive({ eventId: "invalid" }, by), 1)
    yield* admin.discard("invalid", by)
    yield* admin.record("pause", by)
    // Whoever pauses looks at who runs.
    yield* admin.pumps()
    // From the audit, and the one that is published.
    yield* admin.erase("invalid", by)
    const [left] = (yield* admin.events({ state: "published" }, { limit: 1 })).events
    yield* admin.erase(left!.eventId, by)
    assert.deepInclude(yield* admin.prune({ _tag: "Age", age: "0 millis" }, { limit: 10 }), { removed: 1 })
    assert.deepStrictEqual(
      (yield* admin.audit({ limit: 7 })).entries.map(({ action }) => action),
      ["erase", "erase", "pause", "discard", "redrive", "park", "redrive"]
    )
  }).pipe(Effect.provide(Layer.provideMerge(PostgresOutboxAdmin.layer(), clientOf(url))))

/** A node, whose table `public.tenants` is there. */
export const node = (url: string) =>
  Effect.gen(function* () {
    assert.deepStrictEqual(yield* FleetMigrations.run(), [])
    const applied = yield* AppliedEvents.AppliedEvents
    const sql = yield* PgClient.PgClient
    const delivery = (eventId: string, version: number) =>
      ({ eventId, version, feed: "feed" }) as unknown as AppliedEvents.Delivery
    const handlers = RowsArtifact.handlers(new Set(["public.tenants"]))
    const rows = (op: string, rows: ReadonlyArray<object>) =>
      handlers.handle({
        event: { event_id: "e", type: "x", control_version: 1 } as never,
        artifact: Buffer.from(JSON.stringify({ db: "public", table: "tenants", op, pk: ["id", "name"], rows }))
      })
    yield* applied.adopt("feed")
    const both = [
      { id: 1, name: "one", plan: "free" },
      { id: 2, name: "two", plan: "gold" }
    ]
    assert.deepStrictEqual(
      yield* applied.applyAll([delivery("e1", 1), delivery("e1", 1), delivery("e2", 2)], (fresh) => {
        assert.deepStrictEqual(fresh, [0, 2])
        return Effect.zipRight(rows("upsert", both), rows("delete", [{ id: 1, name: "one" }]))
      }),
      ["applied", "skipped", "applied"]
    )
    assert.deepStrictEqual(yield* sql`SELECT id, plan FROM "public".tenants`, [{ id: "2", plan: "gold" }])
    assert.strictEqual(yield* applied.applyOnce(delivery("e2", 2), Effect.void), "skipped")
    assert.isTrue(yield* applied.isApplied("e1" as never))
    assert.isFalse(yield* applied.isApplied("e9" as never))
    assert.strictEqual(yield* applied.setAside(delivery("e3", 3), "no"), "setAside")
    assert.deepInclude((yield* applied.asides())[0], { eventId: "e3", version: 3, reason: "no" })
    assert.deepStrictEqual(yield* applied.cursor, { feed: "feed", position: 3 })
    assert.strictEqual(yield* applied.prune({ keep: 2, olderThan: "0 millis" }), 1)
    yield* applied.seek({ feed: "feed", position: 2 })
    assert.strictEqual((yield* Effect.flip(applied.seek({ feed: "feed", position: 0 })))._tag, "MarksPruned")
    yield* applied.start({ feed: "other", position: 5, pending: ["e7" as never] }, Effect.void)
    assert.deepStrictEqual(yield* applied.cursor, { feed: "other", position: 5 })
    assert.isTrue(yield* applied.isApplied("e7" as never))
  }).pipe(Effect.provide(Layer.provideMerge(PostgresAppliedEvents.layer(), clientOf(url))))

/** Publishes one event, fails another and parks a third, without a pump: what a pump needs, step by step. */
export const publishOnce = (url: string) =>
  Effect.gen(function* () {
    assert.deepStrictEqual(yield* Migrations.run(), [])
    const store = yield* OutboxStore.OutboxStore
    const { lanes } = yield* store.probe({ now: Date.now(), afterParked: "pass" })
    assert.isTrue(Arr.isNonEmptyReadonlyArray(lanes))
    const now = Date.now()
    yield* Effect.scoped(
      Effect.gen(function* () {
        const claim = yield* store.claim({
          lanes: lanes as Arr.NonEmptyReadonlyArray<number>,
          now,
          limit: 10,
          maxBytes: 1e6,
          holdFor: 60_000,
          afterParked: "pass"
        })
        if (claim._tag !== "Claim") return yield* Effect.dieMessage(claim._tag)
        const [first, second, third] = claim.rows
        yield* claim.settle({
          now,
          published: [{ id: first.id, version: 1 as never }],
          failed: [{ id: second!.id, error: "no", nextAttemptAt: now + 1 }],
          parked: [{ id: third!.id, error: "never" }]
        })
      })
    )
    yield* store.backlog({ limit: 10 })
    yield* store.redrive([(yield* store.parked({ limit: 10 }))[0]!.eventId])
    const admin = yield* OutboxAdmin.OutboxAdmin
    assert.deepInclude(yield* admin.prune({ _tag: "Age", age: "0 millis" }, { limit: 10 }), { removed: 1 })
    yield* admin.record("prune", by)
    const report = { id: "p", host: "h", pid: 1, version: "1", startedAt: now, state: "idle", since: now } as const
    for (const published of [0, 1]) yield* admin.attend({ ...report, sink: "nop", published })
    assert.strictEqual((yield* admin.pumps()).length, 1)
    yield* admin.leave("p")
  }).pipe(
    Effect.provide(
      Layer.merge(Postgres.layer(), PostgresOutboxAdmin.layer()).pipe(
        Layer.provideMerge(clientOf(url)),
        Layer.provide(silent)
      )
    )
  )

/** What those read who make snapshots and sweep artifacts. */
const snapshot = (url: string) =>
  Effect.gen(function* () {
    const { pending, position } = yield* PostgresSnapshot.take({ newest: 9 })
    assert.deepStrictEqual([position, pending] as ReadonlyArray<unknown>, [9, ["later"]])
    assert.deepStrictEqual(yield* PostgresArtifacts.inOutbox()(["artifact:1", "artifact:2"]), ["artifact:2"])
  }).pipe(Effect.provide(clientOf(url)))

/** The table that the node changes. */
export const nodeTable = `CREATE TABLE "public".tenants (id bigint, name text, plan text, PRIMARY KEY (id, name))`

/** Runs every part of the product on the outbox and the node's tables in the schema `public`, which are empty. */
export const everyPart = (urls: Urls) =>
  Effect.gen(function* () {
    yield* appendBySql(urls.insert)
    yield* appendByProgram(urls.append, ["a", "b", "c"])
    yield* Effect.scoped(pump(urls))
    yield* look(urls.view)
    yield* look(urls.operate)
    yield* operate(urls.operate)
    yield* Effect.scoped(
      Effect.flatMap(connectTo(urls.insert), (client) =>
        Effect.map(
          failureOf(
            client,
            `BEGIN READ WRITE; ${insert("later", "t", '{"event_id":"later","type":"x","tenant_id":"t","artifact_ref":"artifact:2"}')}; COMMIT`
          ),
          (failure) => assert.isUndefined(failure)
        )
      )
    )
    yield* snapshot(urls.view)
    yield* node(urls.node)
  })
