/**
 * A node's applied events, in the database that it applies to.
 *
 * @since 0.1.0
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as FleetMigrations from "./FleetMigrations.js"
import { failureOf } from "./internal/failure.js"
import * as Migrator from "./internal/migrator.js"
import * as Statement from "./internal/statement.js"
import { op, quote } from "./internal/names.js"
import { withTransaction } from "./internal/transaction.js"
import { AppliedEvents, AppliedEventsError, MarksPruned, type Aside, type Delivery } from "../fleet/AppliedEvents.js"
import { layerConfig as makeLayerConfig, type LayerConfig } from "../internal/layerConfig.js"

/**
 * Where a node's tables are.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The PostgreSQL schema of `applied_events`. Default `public`. */
  readonly schema?: string | undefined
}

const toError = (doing: string) => (cause: unknown) => new AppliedEventsError(failureOf(doing, cause))

const float = "pg_catalog.float8"

const milliseconds = (column: string) => `(extract(epoch FROM ${column}) ${op("*")} 1000::numeric)::${float}`

const instant = (parameter: string) => `pg_catalog.to_timestamp(${parameter}::${float} ${op("/")} 1000::${float})`

/**
 * Compares feeds as texts. The operators of `IN` and `IS DISTINCT FROM` would depend on the application's search_path.
 */
const isOf = (feed: string, parameter: string) => `${feed} ${op("=")} ANY (ARRAY['', ${parameter}::pg_catalog.text])`

// Everything except the tables' own columns is qualified: the statements run in the application's transactions, under
// the application's search_path.
const statements = (schema: string) => {
  const events = `${quote(schema)}.applied_events`
  const position = `${quote(schema)}.applied_position`
  return {
    cursor: `SELECT feed, control_version::${float} AS position FROM ${position}`,

    isApplied: `SELECT EXISTS (SELECT FROM ${events} WHERE event_id ${op("=")} $1) AS applied`,

    // $1 event ids, $2 control versions, $3 now, $4 feed, $5 the highest version, $6 the reason to set them aside, or
    // NULL. The position comes first: a second applier waits there, and then sees the marks.
    mark: `
      WITH moved AS (
        UPDATE ${position} SET feed = $4, control_version = greatest(control_version, $5) RETURNING true
      ), moved_marks AS (
        -- A copy in another feed: from now on the mark is as old as the copy.
        UPDATE ${events} mark SET feed = $4, control_version = version
        FROM moved, ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::bigint[])) AS delivered (id, version)
        WHERE mark.event_id ${op("=")} id AND (mark.feed ${op("=")} $4) IS NOT TRUE
      ), mark AS (
        INSERT INTO ${events} (event_id, feed, control_version, applied_at, set_aside)
        SELECT id, $4, version, ${instant("$3")}, $6
        FROM moved, ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::bigint[])) AS delivered (id, version)
        ON CONFLICT (event_id) DO NOTHING RETURNING event_id
      )
      SELECT EXISTS (SELECT FROM moved) AS moved, ARRAY(SELECT event_id FROM mark) AS fresh`,

    asides: `SELECT event_id AS "eventId", control_version::${float} AS version, set_aside AS reason,
        ${milliseconds("applied_at")} AS at
      FROM ${events} WHERE set_aside IS NOT NULL ORDER BY applied_at DESC LIMIT $1`,

    // Every writer of marks locks the position first: one order for all.
    lockPosition: `SELECT FROM ${position} FOR NO KEY UPDATE`,

    // $1 feed, $2 position. A mark of another feed says nothing about this feed's events. A mark without a feed is older
    // than the column: it belongs to the feed that the position is in.
    forget: `
      DELETE FROM ${events}
      WHERE control_version ${op(">")} $2 OR control_version IS NULL
        OR NOT ${isOf(`coalesce(feed, (SELECT feed FROM ${position}))`, "$1")}`,

    // $1 event ids, $2 now
    markPending: `
      INSERT INTO ${events} (event_id, applied_at)
      SELECT id, ${instant("$2")} FROM pg_catalog.unnest($1::pg_catalog.text[]) id ON CONFLICT (event_id) DO NOTHING`,

    start: `UPDATE ${position} SET feed = $1, control_version = $2, marked_after = $2`,

    // $1 feed, $2 position
    seek: `
      UPDATE ${position} SET feed = $1, control_version = $2,
        marked_after = CASE WHEN $2 ${op(">")} control_version OR NOT ${isOf("feed", "$1")} THEN $2 ELSE marked_after END
      WHERE marked_after ${op("<=")} $2 AND (marked_after ${op("=")} 0 OR feed ${op("=")} $1)
      RETURNING true`,

    // $1 feed. Locks the position first, like every writer.
    adopt: `
      WITH adopted AS (
        UPDATE ${position} SET feed = $1 WHERE feed ${op("=")} '' RETURNING true
      )
      UPDATE ${events} SET feed = $1 WHERE feed ${op("=")} '' AND EXISTS (SELECT FROM adopted)`,

    markedAfter: `SELECT marked_after::${float} AS "markedAfter" FROM ${position}`,

    // $1 keep, $2 the instant that pruned marks are older than, $3 limit. The position's version is compared with marks
    // of its own feed only. Locks the position first, like an applier.
    prune: `
      WITH held AS (
        SELECT feed, control_version FROM ${position} FOR NO KEY UPDATE
      ), gone AS (
        DELETE FROM ${events} WHERE event_id ${op("=")} ANY (ARRAY(
          SELECT mark.event_id FROM held, ${events} mark
          WHERE mark.feed ${op("=")} held.feed
            AND mark.control_version ${op("<=")} (held.control_version ${op("-")} $1::bigint)
            AND mark.applied_at ${op("<")} ${instant("$2")} AND mark.set_aside IS NULL
          ORDER BY mark.control_version LIMIT $3
        ))
        RETURNING control_version
      ), noted AS (
        UPDATE ${position} SET marked_after = greatest(marked_after, (SELECT pg_catalog.max(control_version) FROM gone))
        WHERE EXISTS (SELECT FROM gone)
      )
      SELECT pg_catalog.count(*)::integer AS pruned FROM gone`
  }
}

const noPosition = Effect.fail(
  new AppliedEventsError({
    message:
      "Could not read the position: applied_position has no row: restore it, or run the migrations on an empty schema",
    retryable: false
  })
)

/**
 * Stores the applied events in the database of the `SqlClient`. Handlers have to use the same client, so that they join
 * its transaction. Create the tables first: see `FleetMigrations`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options = {}): Effect.Effect<AppliedEvents["Type"], never, SqlClient.SqlClient> =>
  Effect.map(SqlClient.SqlClient, (client) => {
    const sql = client.withoutTransforms()
    const text = statements(options.schema ?? "public")
    const inTransaction = withTransaction(sql, toError)

    const run = Statement.make(sql, toError)

    // Writes have a transaction even for one statement: by default a transaction may be read-only.

    /** Returns the events that had no mark. */
    const mark = (events: ReadonlyArray<Delivery>, setAside: string | null) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const versions = events.map(({ version }) => version)
        const [row] = yield* run<{ readonly moved: boolean; readonly fresh: ReadonlyArray<string> }>(
          "mark events as applied",
          text.mark,
          [events.map(({ eventId }) => eventId), versions, now, events[0]?.feed, Math.max(...versions), setAside]
        )
        return row?.moved === true ? new Set(row.fresh) : yield* noPosition
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
          run<{ readonly applied: boolean }>("look for an event", text.isApplied, [eventId]),
          ([row]) => row?.applied === true
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
            yield* run("lock the position", text.lockPosition)
            const started = yield* effect
            const now = yield* Clock.currentTimeMillis
            yield* run("remove marks", text.forget, [feed, position])
            if (pending.length > 0) yield* run("mark what a snapshot holds", text.markPending, [pending, now])
            yield* run("set the position", text.start, [feed, position])
            return started
          })
        ),

      seek: ({ feed, position }) =>
        Effect.gen(function* () {
          const moved = yield* inTransaction(run("set the position", text.seek, [feed, position]))
          if (moved.length > 0) return
          const [row] = yield* run<{ readonly markedAfter: number }>("read the position", text.markedAfter)
          return yield* row === undefined ? noPosition : new MarksPruned({ position, markedAfter: row.markedAfter })
        }),

      adopt: (feed) => Effect.asVoid(inTransaction(run("adopt the feed", text.adopt, [feed]))),

      prune: ({ keep, limit = 10_000, olderThan }) =>
        Effect.gen(function* () {
          const now = yield* Clock.currentTimeMillis
          const before = now - Duration.toMillis(olderThan)
          const [row] = yield* inTransaction(
            run<{ readonly pruned: number }>("prune marks", text.prune, [keep, before, limit])
          )
          return row?.pruned ?? 0
        })
    })
  })

/**
 * Provides the applied events in the database of the `SqlClient`. Fails with `FleetSchemaMismatch` if the tables are
 * missing or have another version: provide `FleetMigrations.layer`, or run `controlpublish migrate --node` first. A
 * database that does not answer at the start is logged.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options: Options = {}
): Layer.Layer<AppliedEvents, FleetMigrations.FleetSchemaMismatch, SqlClient.SqlClient> =>
  Layer.effect(
    AppliedEvents,
    Effect.zipRight(
      Migrator.atStart(options.schema ?? "public", "--node --grant-node ROLE", FleetMigrations.check(options)),
      make(options)
    )
  )

/**
 * Provides the same as {@link layer}, its options read from `Config`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig: LayerConfig<
  Options,
  AppliedEvents,
  FleetMigrations.FleetSchemaMismatch,
  SqlClient.SqlClient
> = makeLayerConfig(layer)
