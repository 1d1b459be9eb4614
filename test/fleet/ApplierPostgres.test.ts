import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import type { Statement } from "@effect/sql"
import { Effect, Layer, Logger, LogLevel, Schema } from "effect"
import { EventType, Outbox, type ControlEvent } from "../../src/index.js"
import { AppliedEvents, Applier, ArtifactStore, Handlers, Source } from "../../src/fleet/index.js"
import { FleetMigrations, PostgresAppliedEvents, PostgresSnapshot } from "../../src/postgres/index.js"
import { MemorySource } from "../../src/testing/index.js"
import { layerClient, layerOutbox } from "../support/postgres.js"

const silent = Logger.minimumLogLevel(LogLevel.None)

let schemas = 0

const Counted = EventType.make("counted", { event_id: Schema.String })

/** A node of its own whose handlers take batches. Each hundredth event is of a type that has no name. */
const batchNode = (isBroken: (id: string) => boolean = () => false, cannotApply: "halt" | "setAside" = "halt") => {
  const batches: Array<ReadonlyArray<string>> = []
  const insert = (log: Statement.Identifier) => (batch: ReadonlyArray<string>) =>
    Effect.gen(function* () {
      const sql = yield* PgClient.PgClient
      batches.push(batch)
      yield* sql`INSERT INTO ${log} ${sql.insert(batch.map((event_id) => ({ event_id })))}`
      if (!batch.some(isBroken)) return
      return yield* cannotApply === "halt"
        ? Effect.fail("not yet")
        : new Handlers.CannotApply({ reason: "a number that never was" })
    })
  return Effect.map(
    nodeOf(
      (log) =>
        Handlers.makeBatch(
          [Counted],
          { counted: (batch) => insert(log)(batch.map(({ fields }) => fields.event_id)) },
          { otherwise: (batch) => insert(log)(batch.map(({ event }) => event.event_id)) }
        ),
      { cannotApply }
    ),
    (node) => ({ ...node, batches })
  )
}

const node = (
  before: (event: ControlEvent.ControlEvent) => Effect.Effect<void, unknown>,
  options: Applier.Options = {}
) =>
  nodeOf(
    (log) =>
      Handlers.make(
        [],
        {},
        {
          otherwise: ({ event }) =>
            Effect.zipRight(
              before(event),
              Effect.flatMap(PgClient.PgClient, (sql) => sql`INSERT INTO ${log} (event_id) VALUES (${event.event_id})`)
            )
        }
      ),
    options
  )

/** A node of its own, with a table that tells what was applied, in which order, and in which transactions. */
const nodeOf = (
  handlersOf: (log: Statement.Identifier) => Handlers.Handlers<PgClient.PgClient>,
  options: Applier.Options
) =>
  Effect.gen(function* () {
    const sql = yield* PgClient.PgClient
    const schema = `node_${++schemas}`
    yield* FleetMigrations.run({ schema })
    const log = sql(`${schema}.log`)
    yield* sql`CREATE TABLE ${log} (position bigserial, event_id text NOT NULL)`
    const handlers = handlersOf(log)
    const context = yield* Layer.build(
      Applier.layerManual(handlers, options).pipe(
        Layer.provideMerge(MemorySource.layer),
        Layer.provideMerge(PostgresAppliedEvents.layer({ schema })),
        Layer.provide(ArtifactStore.layerNone),
        Layer.provide(silent)
      )
    )
    const provided = <A, E>(
      effect: Effect.Effect<
        A,
        E,
        MemorySource.MemorySource | AppliedEvents.AppliedEvents | Applier.Applier | Source.Source
      >
    ) => Effect.provide(effect, context)
    return {
      provided,
      append: (ids: ReadonlyArray<string>) =>
        provided(
          Effect.flatMap(MemorySource.MemorySource, (source) =>
            source.append(
              ids.map((event_id) => JSON.stringify({ event_id, type: event_id.endsWith("00") ? "x" : "counted" }))
            )
          )
        ),
      drain: provided(Effect.flatMap(Applier.Applier, ({ drain }) => drain)),
      cursor: provided(Effect.flatMap(AppliedEvents.AppliedEvents, ({ cursor }) => cursor)),
      applied: Effect.map(sql<{ event_id: string }>`SELECT event_id FROM ${log} ORDER BY position`, (rows) =>
        rows.map(({ event_id }) => event_id)
      ),
      transactions: Effect.map(
        sql<{ n: number }>`SELECT count(DISTINCT xmin::text)::int AS n FROM ${log}`,
        ([row]) => row!.n
      )
    }
  })

const ids = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, n) => `e${from + n}`)

layer(Layer.provideMerge(layerOutbox("public"), layerClient), { excludeTestServices: true, timeout: 300_000 })(
  "Applier on PostgreSQL",
  (it) => {
    it.scoped("applies many events in one transaction if many have arrived", () =>
      Effect.gen(function* () {
        const { append, applied, drain, transactions } = yield* node(() => Effect.void)
        yield* append(ids(1, 300))
        assert.deepInclude(yield* drain, { applied: 300 })
        assert.deepStrictEqual(yield* applied, ids(1, 300))
        assert.isBelow(yield* transactions, 100)
      })
    )

    it.scoped("applies each in its own transaction if configured", () =>
      Effect.gen(function* () {
        const { append, drain, transactions } = yield* node(() => Effect.void, { batchSize: 1 })
        yield* append(ids(1, 20))
        yield* drain
        assert.strictEqual(yield* transactions, 20)
      })
    )

    it.scoped("applies each in its own transaction if handlers are slow", () =>
      Effect.gen(function* () {
        const { append, drain, transactions } = yield* node(() => Effect.sleep("210 millis"))
        yield* append(ids(1, 5))
        yield* drain
        assert.strictEqual(yield* transactions, 5)
      })
    )

    it.scoped("applies a copy among them once", () =>
      Effect.gen(function* () {
        const { append, applied, drain } = yield* node(() => Effect.void)
        yield* append([...ids(1, 30), "e30", "e7", "e31", "e31"])
        assert.deepStrictEqual(yield* drain, { applied: 31, skipped: 3, setAside: 0 })
        assert.deepStrictEqual(yield* applied, ids(1, 31))
      })
    )

    it.scoped("halts at the event that fails, with everything before it applied, and nothing twice", () =>
      Effect.gen(function* () {
        let fails = true
        const { append, applied, cursor, drain } = yield* node(({ event_id }) =>
          fails && event_id === "e40" ? Effect.fail("not yet") : Effect.void
        )
        yield* append(ids(1, 100))
        const error = yield* Effect.flip(drain)
        assert.strictEqual(error._tag, "HandlerFailed")
        assert.deepStrictEqual(yield* applied, ids(1, 39))
        assert.strictEqual((yield* cursor).position, 39)
        fails = false
        yield* drain
        assert.deepStrictEqual(yield* applied, ids(1, 100))
      })
    )

    it.scoped("gives batches to handlers that take them: runs of one type, in order, each event once", () =>
      Effect.gen(function* () {
        const { append, applied, batches, drain, transactions } = yield* batchNode()
        yield* append(ids(1, 300))
        yield* append(["e300", "e7", "e301", "e301"])
        assert.deepStrictEqual(yield* drain, { applied: 301, skipped: 3, setAside: 0 })
        assert.deepStrictEqual(yield* applied, ids(1, 301))
        assert.isBelow(yield* transactions, 100)
        // As many statements as batches, and a batch ends where the type changes.
        assert.isBelow(batches.length, 100)
        assert.isTrue(batches.every((batch) => batch.length === 1 || batch.every((id) => !id.endsWith("00"))))
        assert.isTrue(batches.some((batch) => batch.length > 30))
      })
    )

    it.scoped("tries the events of a batch that fails one at a time, and halts at the one that fails", () =>
      Effect.gen(function* () {
        let fails = true
        const { append, applied, batches, cursor, drain } = yield* batchNode((id) => fails && id === "e140")
        yield* append(ids(1, 180))
        const error = yield* Effect.flip(drain)
        assert.strictEqual(error._tag, "HandlerFailed")
        assert.deepStrictEqual(yield* applied, ids(1, 139))
        assert.strictEqual((yield* cursor).position, 139)
        assert.isTrue(batches.some((batch) => batch.length > 1 && batch.includes("e140")))
        assert.deepStrictEqual(batches[batches.length - 1], ["e140"])
        fails = false
        yield* drain
        assert.deepStrictEqual(yield* applied, ids(1, 180))
      })
    )

    it.scoped("sets the event of a batch aside that can never be applied, and no other", () =>
      Effect.gen(function* () {
        const { append, applied, cursor, drain } = yield* batchNode((id) => id === "e40", "setAside")
        yield* append(ids(1, 60))
        assert.deepStrictEqual(yield* drain, { applied: 59, skipped: 0, setAside: 1 })
        assert.deepStrictEqual(
          yield* applied,
          ids(1, 60).filter((id) => id !== "e40")
        )
        assert.strictEqual((yield* cursor).position, 60)
      })
    )

    it.scoped("halts at the event whose commit fails", () =>
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        yield* sql`CREATE TABLE deferred (id text UNIQUE DEFERRABLE INITIALLY DEFERRED)`
        const { append, applied, drain } = yield* node(({ event_id }) =>
          sql`INSERT INTO deferred VALUES (${event_id === "e20" ? "e19" : event_id})`.pipe(Effect.asVoid)
        )
        yield* append(ids(1, 50))
        const error = yield* Effect.flip(drain)
        assert.deepInclude({ ...error }, { _tag: "AppliedEventsError", retryable: false })
        assert.deepStrictEqual(yield* applied, ids(1, 19))
      })
    )

    it.scoped("sets one event aside among many", () =>
      Effect.gen(function* () {
        const { append, applied, drain, provided } = yield* node(
          ({ event_id }) => (event_id === "e40" ? new Handlers.CannotApply({ reason: "never" }) : Effect.void),
          { cannotApply: "setAside" }
        )
        yield* append([...ids(1, 60), ""])
        yield* provided(
          Effect.flatMap(MemorySource.MemorySource, (source) =>
            source.append([
              JSON.stringify({ event_id: "e61", type: "" }),
              JSON.stringify({ event_id: "e62", type: "x" })
            ])
          )
        )
        // An event without an id cannot be marked.
        assert.strictEqual((yield* Effect.flip(drain))._tag, "InvalidEvent")
        assert.deepStrictEqual(yield* applied, [...ids(1, 39), ...ids(41, 60)])
        yield* provided(
          Effect.gen(function* () {
            const events = yield* AppliedEvents.AppliedEvents
            yield* events.seek({ ...(yield* events.cursor), position: 61 })
          })
        )
        assert.deepStrictEqual(yield* drain, { applied: 1, skipped: 0, setAside: 1 })
      })
    )

    it.scoped("starts a new node from a snapshot, and applies each event after it once", () =>
      Effect.gen(function* () {
        const sql = yield* PgClient.PgClient
        const outbox = yield* Outbox.Outbox
        const { append, applied, drain, provided } = yield* node(() => Effect.void)
        const change = (event_id: string) => outbox.withTransaction(outbox.append({ event_id, type: "x" }))
        yield* Effect.forEach(ids(1, 10), change)
        // The pump has published six of ten when the snapshot is taken.
        const published = ids(1, 6)
        yield* append(published)
        for (const [index, id] of published.entries()) {
          yield* sql`UPDATE control_events_outbox SET published_control_version = ${index + 1}, published_at = now()
            WHERE event_id = ${id}`
        }
        const { pending, position } = yield* PostgresSnapshot.take({ newest: 0 })
        assert.strictEqual(position, 6)
        assert.sameMembers([...pending], ids(7, 10))
        // What retention has removed by then, the feed alone knows.
        yield* Effect.flip(
          sql.withTransaction(
            Effect.gen(function* () {
              yield* sql`DELETE FROM control_events_outbox WHERE published_at IS NOT NULL`
              assert.strictEqual((yield* PostgresSnapshot.take({ newest: 6 })).position, 6)
              return yield* Effect.fail("undo")
            })
          )
        )
        assert.strictEqual((yield* PostgresSnapshot.take({ newest: 2 })).position, 6)
        yield* provided(
          Effect.gen(function* () {
            const events = yield* AppliedEvents.AppliedEvents
            const { identity } = yield* Effect.flatMap(Source.Source, ({ look }) => look)
            yield* events.start({ feed: identity, position, pending }, Effect.void)
          })
        )
        yield* append(ids(7, 13))
        assert.deepStrictEqual(yield* drain, { applied: 3, skipped: 4, setAside: 0 })
        assert.deepStrictEqual(yield* applied, ids(11, 13))
      }).pipe(Effect.provide(Outbox.layer))
    )
  }
)
