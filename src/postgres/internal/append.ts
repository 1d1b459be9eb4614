import type { PgClient } from "@effect/sql-pg/PgClient"
import type * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import {
  DuplicateEventId,
  NotInTransaction,
  type NewRow,
  type OutboxError,
  type OutboxStore
} from "../../OutboxStore.js"
import * as Ambient from "./ambient.js"
import { OtherDatabase, toOutboxError } from "./failure.js"
import * as Finishing from "./finishing.js"
import * as Guarded from "./guarded.js"
import * as Names from "./names.js"

/** The maximum rows and bytes of one INSERT. */
const insertRows = 5_000
const insertBytes = 16 * 1024 * 1024

const appended = `event_id, event_type, tenant_id, stack_id, version, base_version, artifact_ref, checksum,
  payload_json, ordering_key, traceparent, created_at`

/** The types of the columns, in their order. */
const parameterTypes = "text text text text int8 int8 text text json text text timestamptz"
  .split(" ")
  .map((type) => `pg_catalog.${type}`)

const statements = (names: Names.Names) => {
  const { outbox } = names
  const into = `INSERT INTO ${outbox} (${appended})`
  const unlessThere = "ON CONFLICT (event_id) DO NOTHING RETURNING event_id"
  return {
    orderLocks: `SELECT pg_catalog.pg_advisory_xact_lock(${names.orderLock}, bucket)
      FROM (
        SELECT DISTINCT pg_catalog.${Names.bucketOf('key COLLATE pg_catalog."C"', Names.op("&"))} AS bucket
        FROM pg_catalog.unnest($1::pg_catalog.text[]) key ORDER BY 1
      ) buckets`,

    insert: `${into}
      SELECT ${appended}
      FROM ROWS FROM (${parameterTypes.map((type, index) => `pg_catalog.unnest($${index + 1}::${type}[])`).join(", ")})
        WITH ORDINALITY AS new (${appended}, position)
      ORDER BY position
      ${unlessThere}`,

    // The statement of most appends. For a single row the other one costs the server 0.2 ms more to plan and run.
    insertOne: `${into} VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ${unlessThere}`,

    takeBack: `SELECT ${Guarded.takeBack(names)}($1::pg_catalog.text[])`,

    fail: `DO $$ BEGIN RAISE EXCEPTION 'an append to the outbox was interrupted'; END $$`
  }
}

/** The parameters of the INSERT: one array per column. */
const columns = (rows: ReadonlyArray<NewRow>): ReadonlyArray<ReadonlyArray<unknown>> => [
  rows.map(({ event }) => event.event_id),
  rows.map(({ event }) => event.type),
  rows.map(({ event }) => event.tenant_id),
  rows.map(({ event }) => event.stack_id),
  rows.map(({ event }) => event.version),
  rows.map(({ event }) => event.base_version),
  rows.map(({ event }) => event.artifact_ref),
  rows.map(({ event }) => event.checksum),
  rows.map(({ payload }) => payload),
  rows.map(({ orderingKey }) => orderingKey),
  rows.map(({ traceparent }) => traceparent),
  rows.map(({ event }) => event.created_at)
]

const chunks = (rows: ReadonlyArray<NewRow>): ReadonlyArray<ReadonlyArray<NewRow>> => {
  const result: Array<Array<NewRow>> = []
  let bytes = 0
  for (const row of rows) {
    const last = result[result.length - 1]
    bytes += row.payload.length
    if (last === undefined || last.length >= insertRows || bytes > insertBytes) {
      result.push([row])
      bytes = row.payload.length
    } else {
      last.push(row)
    }
  }
  return result
}

/** Appends rows in the transaction of the application. */
export const make = (sql: PgClient, names: Names.Names): OutboxStore["Type"]["append"] => {
  const text = statements(names)
  const ambient = Ambient.make(sql)

  const run = <Row extends object>(doing: string, statement: string, values: ReadonlyArray<unknown>) =>
    Effect.suspend(() => sql.unsafe<Row>(statement, values)).pipe(
      Effect.mapError((error) => toOutboxError(doing)(error.cause))
    )

  const insertChunk = (rows: ReadonlyArray<NewRow>) =>
    Effect.map(
      rows.length === 1
        ? run<{ event_id: string }>("append to the outbox", text.insertOne, columns(rows).flat())
        : run<{ event_id: string }>("append to the outbox", text.insert, columns(rows)),
      (inserted) => inserted.map((row) => row.event_id)
    )

  const takeBack = (eventIds: ReadonlyArray<string>) => run("take back an append", text.takeBack, [eventIds])

  const insert = (rows: Arr.NonEmptyReadonlyArray<NewRow>, { isStopped }: Finishing.Signal) =>
    Effect.gen(function* () {
      const keys = new Set(rows.map((row) => row.orderingKey))
      // Locked in one order before the trigger locks any of them, so that two batches cannot deadlock.
      if (keys.size > 1) yield* run("lock the ordering keys", text.orderLocks, [Array.from(keys)])
      const inserted: Array<string> = []
      for (const chunk of chunks(rows)) {
        if (isStopped()) break
        const ids = yield* insertChunk(chunk)
        for (const id of ids) inserted.push(id)
        if (ids.length === chunk.length) continue
        yield* takeBack(inserted)
        const fresh = new Set(ids)
        const duplicate = chunk.find(({ event }) => !fresh.delete(event.event_id))
        return yield* new DuplicateEventId({ eventId: duplicate!.event.event_id })
      }
      return inserted
    })

  // If one of several statements was cut, the commit would keep those before it, and the cut one would fail the
  // transaction unnoticed by a program that continues.
  const finish = Finishing.make({
    undo: (inserted: ReadonlyArray<string>) => (inserted.length === 0 ? Effect.void : takeBack(inserted)),
    // It is sent to fail. No answer means that the connection is gone, and the transaction with it.
    fail: Effect.ignore(run("fail the transaction", text.fail, []))
  })

  return (rows) =>
    Effect.matchEffect(ambient, {
      onFailure: (error): Effect.Effect<never, NotInTransaction | OutboxError> =>
        error instanceof OtherDatabase
          ? new NotInTransaction({ reason: "OtherDatabase", database: error.database })
          : toOutboxError("look which database the transaction is in")(error.cause),
      onSuccess: (connection): Effect.Effect<void, NotInTransaction | DuplicateEventId | OutboxError> =>
        connection === undefined ? new NotInTransaction({}) : Effect.asVoid(finish((signal) => insert(rows, signal)))
    })
}
