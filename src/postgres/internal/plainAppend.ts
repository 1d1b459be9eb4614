import type * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import {
  DuplicateEventId,
  NotInTransaction,
  type NewRow,
  type OutboxError,
  type OutboxStore
} from "../../OutboxStore.js"
import { toOutboxError } from "./failure.js"
import * as Names from "./names.js"

/** Runs one statement in the transaction of the caller, whatever library began it, and answers its rows. */
export type Query = (text: string, values: ReadonlyArray<string>) => Promise<ReadonlyArray<unknown>>

/** The columns of an append, with the types that they have in the row's JSON. */
const columns = {
  event_id: "text",
  event_type: "text",
  tenant_id: "text",
  stack_id: "text",
  version: "int8",
  base_version: "int8",
  artifact_ref: "text",
  checksum: "text",
  // Text within the JSON, which keeps the payload as it is.
  payload_json: "text",
  ordering_key: "text",
  traceparent: "text",
  created_at: "timestamptz"
}

const toJson = ({
  event,
  orderingKey,
  payload,
  traceparent
}: NewRow): Readonly<Record<keyof typeof columns, unknown>> => ({
  event_id: event.event_id,
  event_type: event.type,
  tenant_id: event.tenant_id,
  stack_id: event.stack_id,
  version: event.version,
  base_version: event.base_version,
  artifact_ref: event.artifact_ref,
  checksum: event.checksum,
  payload_json: payload,
  ordering_key: orderingKey,
  traceparent,
  created_at: event.created_at
})

// One parameter, of text: the libraries agree on little else. None of these has a question mark, which is Knex's.
const statements = (names: Names.Names) => {
  const parameter = "$1::pg_catalog.text::pg_catalog.json"
  const into = Object.keys(columns).join(", ")
  const values = Object.keys(columns).map((name) => (name === "payload_json" ? `${name}::pg_catalog.json` : name))
  const types = Object.entries(columns).map(([name, type]) => `${name} pg_catalog.${type}`)
  const insert = (condition: string) => `INSERT INTO ${names.outbox} (${into})
    SELECT ${values.join(", ")}
    FROM ROWS FROM (pg_catalog.json_to_recordset(${parameter}) AS (${types.join(", ")}))
      WITH ORDINALITY AS new (${into}, position)
    ${condition}
    ORDER BY position
    ON CONFLICT (event_id) DO NOTHING RETURNING event_id`
  return {
    insert: insert(""),
    // A statement outside a transaction has no xid when it begins.
    insertInTransaction: insert("WHERE pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL"),
    orderLocks: `SELECT pg_catalog.pg_advisory_xact_lock(${names.orderLock}, bucket)::pg_catalog.text AS locked
      FROM (
        SELECT DISTINCT pg_catalog.${Names.bucketOf('key COLLATE pg_catalog."C"', Names.op("&"))} AS bucket
        FROM pg_catalog.json_array_elements_text(${parameter}) key ORDER BY 1
      ) buckets`
  }
}

const savepoint = "controlpublish_append"

/** The error of the server below what a library made of it. */
const ofServer = (error: unknown): unknown => {
  let found = error
  for (let depth = 0; depth < 5; depth++) {
    if (typeof found !== "object" || found === null) break
    if ("code" in found && typeof found.code === "string" && /^[0-9A-Z]{5}$/.test(found.code)) {
      // Prisma has a code of its own for what the server reports, of five characters as well.
      if (!/^P\d{4}$/.test(found.code)) return found
    }
    const below: unknown = "cause" in found ? found.cause : undefined
    if (below === undefined || below === null) break
    found = below
  }
  return error
}

const saysNoTransaction = (error: unknown): boolean =>
  /25P01|can only be used in transaction blocks/.test(
    error instanceof Error ? `${"code" in error ? String(error.code) : ""} ${error.message}` : String(error)
  )

/**
 * Appends rows in a transaction that the caller began with whatever library. A library does not tell whether there is a
 * transaction. The server does: by an xid, which a transaction has that changed something before, and else by a savepoint.
 */
export const make = (names: Names.Names, query: Query): OutboxStore["Type"]["append"] => {
  const text = statements(names)

  const run = (doing: string, statement: string, values: ReadonlyArray<string>) =>
    Effect.tryPromise({
      try: () => query(statement, values),
      catch: (error) => toOutboxError(doing)(ofServer(error))
    })

  const insert = (statement: string, rows: ReadonlyArray<NewRow>) =>
    Effect.map(
      run("append to the outbox", statement, [JSON.stringify(rows.map(toJson))]),
      (inserted) => inserted as ReadonlyArray<{ readonly event_id: string }>
    )

  const begin = Effect.tryPromise(() => query(`SAVEPOINT ${savepoint}`, [])).pipe(
    Effect.mapError(({ error }): NotInTransaction | OutboxError => {
      const cause = ofServer(error)
      return saysNoTransaction(cause) ? new NotInTransaction({}) : toOutboxError("append to the outbox")(cause)
    })
  )

  const insertAll = (rows: Arr.NonEmptyReadonlyArray<NewRow>) =>
    Effect.gen(function* () {
      yield* begin
      const keys = new Set(rows.map(({ orderingKey }) => orderingKey))
      // Taken in one order, before any of them is taken by the trigger: two batches cannot wait for each other.
      if (keys.size > 1) yield* run("lock the ordering keys", text.orderLocks, [JSON.stringify([...keys])])
      const inserted = yield* insert(text.insert, rows)
      if (inserted.length < rows.length) {
        yield* run("take back an append", `ROLLBACK TO SAVEPOINT ${savepoint}`, [])
        yield* run("take back an append", `RELEASE SAVEPOINT ${savepoint}`, [])
        const fresh = new Set(inserted.map((row) => row.event_id))
        const duplicate = rows.find(({ event }) => !fresh.delete(event.event_id))
        return yield* new DuplicateEventId({ eventId: duplicate!.event.event_id })
      }
      yield* run("append to the outbox", `RELEASE SAVEPOINT ${savepoint}`, [])
    })

  return (rows) =>
    rows.length > 1
      ? insertAll(rows)
      : Effect.flatMap(insert(text.insertInTransaction, rows), (inserted) =>
          inserted.length === 1 ? Effect.void : insertAll(rows)
        )
}
