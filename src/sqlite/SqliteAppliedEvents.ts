/**
 * What a node has applied, in the SQLite that it applies to.
 *
 * @since 0.1.0
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { AppliedEvents, AppliedEventsError, MarksPruned, type Aside, type Delivery } from "../fleet/AppliedEvents.js"
import { OtherDatabase, toError } from "./internal/failure.js"

// Parameters are anonymous: better-sqlite3 takes numbered ones for names. Lists are JSON.
const text = {
  cursor: "SELECT feed, control_version AS position FROM applied_position",

  isApplied: "SELECT count(*) AS applied FROM applied_events WHERE event_id = ?",

  // Feed, version. It takes the lock that other appliers wait for.
  move: "UPDATE applied_position SET feed = ?, control_version = max(control_version, ?) RETURNING 1 AS moved",

  // Feed, deliveries, deliveries, feed. A copy in another feed: from now on the mark is as old as the copy.
  moveMarks: `
    UPDATE applied_events SET feed = ?,
      control_version = (SELECT value ->> 1 FROM json_each(?) WHERE value ->> 0 = event_id)
    WHERE event_id IN (SELECT value ->> 0 FROM json_each(?)) AND feed IS NOT ?`,

  // Feed, now, why they are set aside or NULL, deliveries.
  mark: `
    INSERT INTO applied_events (event_id, feed, control_version, applied_at, set_aside)
    SELECT value ->> 0, ?, value ->> 1, ?, ? FROM json_each(?) WHERE true
    ON CONFLICT (event_id) DO NOTHING RETURNING event_id AS id`,

  asides: `
    SELECT event_id AS "eventId", control_version AS version, set_aside AS reason, applied_at AS at
    FROM applied_events WHERE set_aside IS NOT NULL ORDER BY applied_at DESC LIMIT ?`,

  lock: "UPDATE applied_position SET feed = feed",

  // Position, feed. A mark of another feed says nothing about this feed's events.
  forget: `
    DELETE FROM applied_events
    WHERE control_version > ? OR control_version IS NULL OR feed IS NULL OR feed NOT IN ('', ?)`,

  // Now, ids.
  markPending: `
    INSERT INTO applied_events (event_id, applied_at) SELECT value, ? FROM json_each(?) WHERE true
    ON CONFLICT (event_id) DO NOTHING`,

  // Feed, position, position.
  start: "UPDATE applied_position SET feed = ?, control_version = ?, marked_after = ?",

  // Feed, position, position, feed, position, position, feed.
  seek: `
    UPDATE applied_position SET feed = ?, control_version = ?,
      marked_after = CASE WHEN ? > control_version OR feed NOT IN ('', ?) THEN ? ELSE marked_after END
    WHERE marked_after <= ? AND (marked_after = 0 OR feed = ?)
    RETURNING 1 AS moved`,

  markedAfter: `SELECT marked_after AS "markedAfter" FROM applied_position`,

  adoptPosition: "UPDATE applied_position SET feed = ? WHERE feed = '' RETURNING 1 AS adopted",

  adoptMarks: "UPDATE applied_events SET feed = ? WHERE feed = ''",

  // Keep, the instant that pruned marks are older than, limit. The position's version compares with the marks of its own
  // feed alone.
  prune: `
    DELETE FROM applied_events WHERE event_id IN (
      SELECT mark.event_id FROM applied_position held, applied_events mark
      WHERE mark.feed = held.feed AND mark.control_version <= held.control_version - ?
        AND mark.applied_at < ? AND mark.set_aside IS NULL
      ORDER BY mark.control_version LIMIT ?
    ) RETURNING control_version AS version`,

  pruned: "UPDATE applied_position SET marked_after = max(marked_after, ?)"
}

const noPosition = Effect.fail(
  new AppliedEventsError({
    message: "Could not read the position: applied_position has no row; restore it, or migrate anew",
    retryable: false
  })
)

/** An error of the effect that runs in a transaction. */
class Own<E> {
  readonly error: E
  constructor(error: E) {
    this.error = error
  }
}

/**
 * On the database of the `SqlClient`, a client of SQLite such as `SqliteClient` of `@effect/sql-sqlite-node`: effects
 * that are applied have to use that client, so that they join its transaction. The tables have to be there: see
 * `SqliteMigrations`.
 *
 * A statement of an effect that fails undoes itself and no more. An effect that ignores a failure of the disk or of
 * memory (`SQLITE_FULL`, `SQLITE_IOERR`, `SQLITE_NOMEM`) goes on outside the transaction, which SQLite has rolled back.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: Effect.Effect<AppliedEvents["Type"], AppliedEventsError, SqlClient.SqlClient> = Effect.gen(
  function* () {
    const client = yield* SqlClient.SqlClient
    const sql = client.withoutTransforms()
    // A client of SQLite has one connection, in transactions too.
    const own = yield* Effect.mapError(Effect.scoped(client.reserve), toError("open the database"))

    const inOwn = Effect.flatMap(Effect.serviceOption(SqlClient.TransactionConnection), (around) =>
      Option.isSome(around) && around.value[0] !== own
        ? Effect.fail(toError("use the node's database")(new OtherDatabase()))
        : Effect.void
    )

    // Versions and instants are numbers, whatever the application has set.
    const numbers = Effect.provideService(SqlClient.SafeIntegers, false)

    const run = <Row extends object>(
      doing: string,
      statement: string,
      values: ReadonlyArray<unknown> = []
    ): Effect.Effect<ReadonlyArray<Row>, AppliedEventsError> =>
      Effect.zipRight(
        inOwn,
        Effect.mapError(numbers(Effect.suspend(() => sql.unsafe<Row>(statement, values))), toError(doing))
      )

    const inTransaction = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | AppliedEventsError, R> =>
      Effect.zipRight(
        inOwn,
        client.withTransaction(Effect.mapError(effect, (error) => new Own(error))).pipe(
          Effect.mapError((error) => (error instanceof Own ? error.error : toError("begin a transaction")(error))),
          // To @effect/sql a commit or rollback that fails is a defect.
          Effect.catchSomeCause((cause) =>
            Option.map(
              Option.filter(Cause.dieOption(cause), (defect) => defect instanceof SqlError),
              (defect) => Effect.fail(toError("end the transaction")(defect))
            )
          )
        )
      )

    /** Answers which events had no mark. */
    const mark = (events: ReadonlyArray<Delivery>, setAside: string | null) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const feed = events[0]?.feed
        const versions = events.map(({ version }) => version)
        const deliveries = JSON.stringify(events.map(({ eventId, version }) => [eventId, version]))
        const moved = yield* run("move the position", text.move, [feed, Math.max(...versions)])
        if (moved.length === 0) return yield* noPosition
        yield* run("move marks", text.moveMarks, [feed, deliveries, deliveries, feed])
        const fresh = yield* run<{ readonly id: string }>("mark events as applied", text.mark, [
          feed,
          now,
          setAside,
          deliveries
        ])
        return new Set(fresh.map(({ id }) => id))
      })

    const applyAll = <E, R>(
      events: ReadonlyArray<Delivery>,
      effect: (fresh: ReadonlyArray<number>) => Effect.Effect<unknown, E, R>
    ): Effect.Effect<ReadonlyArray<"applied" | "skipped">, E | AppliedEventsError, R> =>
      events.length === 0
        ? Effect.succeed([])
        : inTransaction(
            Effect.gen(function* () {
              const unmarked = yield* mark(events, null)
              // Of a duplicate, the first one is fresh.
              const outcomes = events.map(({ eventId }) => (unmarked.delete(eventId) ? "applied" : "skipped"))
              const fresh = outcomes.flatMap((outcome, index) => (outcome === "applied" ? [index] : []))
              if (fresh.length > 0) yield* effect(fresh)
              return outcomes
            })
          )

    return AppliedEvents.of({
      cursor: Effect.flatMap(
        run<{ readonly feed: string; readonly position: number }>("read the position", text.cursor),
        ([row]) => (row === undefined ? noPosition : Effect.succeed(row))
      ),

      isApplied: (eventId) =>
        Effect.map(
          run<{ readonly applied: number }>("look for an event", text.isApplied, [eventId]),
          ([row]) => row !== undefined && row.applied > 0
        ),

      applyOnce: (event, effect) =>
        Effect.map(
          applyAll([event], () => effect),
          ([outcome]) => outcome ?? "skipped"
        ),

      applyAll,

      isTransactional: true,

      setAside: (event, reason) =>
        Effect.map(inTransaction(mark([event], reason)), (fresh) => (fresh.size > 0 ? "setAside" : "skipped")),

      asides: (options) => run<Aside>("read what was set aside", text.asides, [options?.limit ?? 100]),

      start: ({ feed, pending = [], position }, effect) =>
        inTransaction(
          Effect.gen(function* () {
            yield* run("lock the position", text.lock)
            const started = yield* effect
            const now = yield* Clock.currentTimeMillis
            yield* run("remove marks", text.forget, [position, feed])
            if (pending.length > 0) {
              yield* run("mark what a snapshot holds", text.markPending, [now, JSON.stringify(pending)])
            }
            yield* run("set the position", text.start, [feed, position, position])
            return started
          })
        ),

      seek: ({ feed, position }) =>
        inTransaction(
          Effect.gen(function* () {
            const values = [feed, position, position, feed, position, position, feed]
            const moved = yield* run("set the position", text.seek, values)
            if (moved.length > 0) return
            const [row] = yield* run<{ readonly markedAfter: number }>("read the position", text.markedAfter)
            return yield* row === undefined ? noPosition : new MarksPruned({ position, markedAfter: row.markedAfter })
          })
        ),

      adopt: (feed) =>
        inTransaction(
          Effect.gen(function* () {
            const adopted = yield* run("adopt the feed", text.adoptPosition, [feed])
            if (adopted.length > 0) yield* run("adopt the feed", text.adoptMarks, [feed])
          })
        ),

      prune: ({ keep, limit = 10_000, olderThan }) =>
        inTransaction(
          Effect.gen(function* () {
            const now = yield* Clock.currentTimeMillis
            yield* run("lock the position", text.lock)
            const values = [keep, now - Duration.toMillis(olderThan), limit]
            const gone = yield* run<{ readonly version: number }>("prune marks", text.prune, values)
            if (gone.length > 0) {
              yield* run("prune marks", text.pruned, [Math.max(...gone.map(({ version }) => version))])
            }
            return gone.length
          })
        )
    })
  }
)

/**
 * Fails if the database cannot be opened. Provide `SqliteMigrations.layer` to it, which makes the tables.
 *
 * @example
 * import { SqliteClient } from "@effect/sql-sqlite-node"
 * import { SqliteAppliedEvents, SqliteMigrations } from "controlpublish/sqlite"
 * import { Layer } from "effect"
 *
 * export const Node = SqliteAppliedEvents.layer.pipe(
 *   Layer.provide(SqliteMigrations.layer),
 *   Layer.provideMerge(SqliteClient.layer({ filename: "node.db" }))
 * )
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<AppliedEvents, AppliedEventsError, SqlClient.SqlClient> = Layer.effect(
  AppliedEvents,
  make
)
