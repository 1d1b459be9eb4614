import type * as Pg from "pg"
import { integers, type Names } from "../../../../src/postgres/internal/names.js"
import { batch, type Variant } from "../variant.js"
import * as AppendOnly from "./appendOnly.js"
import * as Hot from "./hot.js"
import { laneCount } from "./rows.js"
import { base, createView } from "./view.js"

const { receipts } = AppendOnly

const parts = (rows: (names: Names) => string): AppendOnly.Parts => ({
  rows,
  // Ids are named one by one: rows that commit later with lower ids lie between them.
  publishedAbove: (names, lane, start) =>
    `SELECT unnest(ids) FROM ${receipts(names)} WHERE lane = ${lane} AND last_id > ${start}`,
  record: (_names, _lane, { ids }, versions) => ({
    columns: "ids, versions,",
    values: `'${integers(ids)}', '${integers(versions)}',`
  })
})

const arrays = "ids bigint[] NOT NULL DEFAULT '{}', versions bigint[] NOT NULL DEFAULT '{}',"

const byLastId = (names: Names) => `CREATE INDEX control_events_receipts_last ON ${receipts(names)} (lane, last_id);`

const create = (names: Names) => `${Hot.dropIndexes(names)}
  CREATE INDEX control_events_outbox_lane ON ${names.outbox} (lane, id);
  ${AppendOnly.createExceptions(names)}${AppendOnly.createReceipts(names, arrays)}${byLastId(names)}`

/** One receipt for each 500 rows of a lane, as a pump would have left them. */
const publishAll = (rows: string, names: Names) => `
  INSERT INTO ${receipts(names)} (lane, seq, last_id, published_at, ids, versions, start, decided)
  SELECT lane, part + 1, max(id), now() - interval '8 days', array_agg(id ORDER BY id), array_agg(id ORDER BY id), max(id), max(id)
  FROM (SELECT lane, id, (row_number() OVER (PARTITION BY lane ORDER BY id) - 1) / ${batch} AS part FROM ${rows}) numbered
  GROUP BY lane, part`

/** Receipts go with their last row; the newest of a lane stays, as it has the position. */
const remove = (rows: string, names: Names) => `
  WITH gone AS (DELETE FROM ${rows} WHERE id BETWEEN $1 AND $2)
  DELETE FROM ${receipts(names)} receipt WHERE last_id BETWEEN $1 AND $2
    AND seq < (SELECT max(seq) FROM ${receipts(names)} newest WHERE newest.lane = receipt.lane)`

const receiptOf = (column: string, names: Names) => `SELECT ${column} FROM ${receipts(names)} receipt
  WHERE receipt.lane = event.lane AND receipt.last_id >= event.id AND event.id = ANY (receipt.ids)
  ORDER BY receipt.last_id LIMIT 1`

const separate = parts(base)

export const receiptsOnly: Variant = {
  name: "receipts",
  title: "a receipt a batch",
  create: (names) =>
    create(names) +
    createView(names, {
      version: receiptOf("versions[array_position(ids, event.id)]", names),
      at: receiptOf("receipt.published_at", names)
    }),
  tables: (names) => [base(names), receipts(names), AppendOnly.exceptions(names)],
  worker: AppendOnly.worker(separate),
  look: AppendOnly.look(separate),
  fail: AppendOnly.fail(separate),
  redrive: AppendOnly.redrive(separate),
  remove: (names) => remove(base(names), names),
  publishAll: (names) => publishAll(base(names), names),
  parkHeads: (names) => AppendOnly.parkHeads(names, separate)
}

const together = parts(({ outbox }) => outbox)

/** Receipts that one transaction folds into the rows. */
const foldAtOnce = 10

const fold = async (client: Pg.Client, names: Names): Promise<void> => {
  for (let lane = 0; lane < laneCount; lane++) {
    for (let folded: number | null = 1; folded !== 0;) {
      // The newest receipt keeps the position, and loses its arrays.
      const { rowCount } = await client.query(
        `WITH taken AS MATERIALIZED (
          SELECT lane, seq, ids, versions, published_at FROM ${receipts(names)}
          WHERE lane = ${lane} AND ids <> '{}' ORDER BY seq LIMIT ${foldAtOnce}
        ), folded AS (
          UPDATE ${names.outbox} event SET published_control_version = result.version, published_at = result.published_at,
            attempt_count = attempt_count + 1, last_attempt_at = result.published_at
          FROM (SELECT unnest(ids) AS id, unnest(versions) AS version, published_at FROM taken) result
          WHERE event.id = result.id
        )
        UPDATE ${receipts(names)} receipt SET ids = '{}', versions = '{}' FROM taken
        WHERE receipt.lane = taken.lane AND receipt.seq = taken.seq`
      )
      folded = rowCount
    }
  }
}

export const folded: Variant = {
  name: "folded",
  title: "a receipt a batch, folded into the rows",
  create: (names) => `${create(names)} ALTER TABLE ${names.outbox} SET (fillfactor = 60);`,
  tables: (names) => [names.outbox, receipts(names), AppendOnly.exceptions(names)],
  worker: AppendOnly.worker(together),
  look: AppendOnly.look(together),
  fail: AppendOnly.fail(together),
  redrive: AppendOnly.redrive(together),
  remove: (names) => remove(names.outbox, names),
  publishAll: (names) => publishAll(names.outbox, names),
  parkHeads: (names) => AppendOnly.parkHeads(names, together),
  fold
}
