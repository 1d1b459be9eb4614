import type { Names } from "../../../../src/postgres/internal/names.js"
import { beside } from "./rows.js"
import { exceptions } from "./appendOnly.js"

/** The table that has the rows once the name `control_events_outbox` belongs to a view. */
export const base = (names: Names): string => beside(names, "control_events")

/** The row before and after the columns that the view computes. */
export const columnsBefore = `id, event_id, event_type, tenant_id, stack_id, version, base_version, artifact_ref, checksum,
  payload_json, payload_bytes, ordering_key, lane, traceparent, created_at`

/**
 * Gives the name of the table to a view that shows each row with its receipt and its exception. The view has one table in
 * its FROM, and its computed columns are scalar subqueries: so PostgreSQL rewrites an INSERT or a DELETE on it to one on
 * the table, ON CONFLICT included, with no trigger. What was published before the migration has its version in the row.
 */
export const createView = (names: Names, published: Record<"version" | "at", string>): string => `
ALTER TABLE ${names.outbox} RENAME TO control_events;
CREATE VIEW ${names.outbox} AS SELECT ${columnsBefore},
  coalesce((SELECT exception.attempt_count FROM ${exceptions(names)} exception WHERE exception.id = event.id), event.attempt_count)
    + CASE WHEN event.published_at IS NULL AND (${published.at}) IS NOT NULL THEN 1 ELSE 0 END AS attempt_count,
  coalesce((SELECT exception.last_error FROM ${exceptions(names)} exception WHERE exception.id = event.id), event.last_error) AS last_error,
  (SELECT exception.next_attempt_at FROM ${exceptions(names)} exception WHERE exception.id = event.id) AS next_attempt_at,
  (SELECT exception.parked_at FROM ${exceptions(names)} exception WHERE exception.id = event.id) AS parked_at,
  coalesce(event.published_control_version, (${published.version})) AS published_control_version,
  coalesce(event.published_at, (${published.at})) AS published_at
FROM ${base(names)} event;
`
