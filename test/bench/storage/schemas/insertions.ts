import { integers, type Names } from "../../../../src/postgres/internal/names.js"
import type { Variant } from "../variant.js"
import * as AppendOnly from "./appendOnly.js"
import * as Hot from "./hot.js"
import { beside } from "./rows.js"
import { base, createView } from "./view.js"

const published = (names: Names) => beside(names, "control_events_published")

const parts: AppendOnly.Parts = {
  rows: base,
  publishedAbove: (names, lane, start) =>
    `SELECT id FROM ${published(names)} WHERE (lane, id) > (${lane}, ${start}) AND lane <= ${lane}`,
  record: (names, lane, { ids }, versions, now) => ({
    columns: "",
    values: "",
    written: `written AS (
      INSERT INTO ${published(names)} (lane, id, version, published_at)
      SELECT ${lane}, id, version, ${now}
      FROM unnest('${integers(ids)}'::bigint[], '${integers(versions)}'::bigint[]) AS result (id, version)
    )`
  })
}

const publishedOf = (column: string, names: Names) => `SELECT published.${column} FROM ${published(names)} published
  WHERE published.lane = event.lane AND published.id = event.id`

/** A publish inserts a narrow row beside the event's, which nothing updates either. */
export const insertions: Variant = {
  name: "insertions",
  title: "a narrow row inserted a row",
  create: (names) => `${Hot.dropIndexes(names)}
    CREATE INDEX control_events_outbox_lane ON ${names.outbox} (lane, id);
    ${AppendOnly.createExceptions(names)}${AppendOnly.createReceipts(names, "")}
    CREATE TABLE ${published(names)} (
      lane smallint, id bigint, version bigint NOT NULL, published_at timestamptz NOT NULL, PRIMARY KEY (lane, id));
    ${createView(names, { version: publishedOf("version", names), at: publishedOf("published_at", names) })}`,
  tables: (names) => [base(names), published(names), AppendOnly.receipts(names), AppendOnly.exceptions(names)],
  worker: AppendOnly.worker(parts),
  look: AppendOnly.look(parts),
  fail: AppendOnly.fail(parts),
  redrive: AppendOnly.redrive(parts),
  remove: (names) => `
    WITH gone AS (DELETE FROM ${base(names)} WHERE id BETWEEN $1 AND $2 RETURNING lane, id)
    DELETE FROM ${published(names)} published USING gone WHERE published.lane = gone.lane AND published.id = gone.id`,
  publishAll: (names) => `
    INSERT INTO ${published(names)} SELECT lane, id, id, now() - interval '8 days' FROM ${base(names)} ORDER BY lane, id;
    INSERT INTO ${AppendOnly.receipts(names)} (lane, seq, last_id, published_at, start, decided)
      SELECT lane, 1, max(id), now(), max(id), max(id) FROM ${base(names)} GROUP BY lane`,
  parkHeads: (names) => AppendOnly.parkHeads(names, parts)
}
