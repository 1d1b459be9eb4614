import type { Names } from "./names.js"

/**
 * Migration 2: what operators see. It does not touch the outbox's own table, so it waits for no append and no pump, and
 * pumps of migration 1 continue.
 */
export const operating = (names: Names): string => `
-- The attempts that failed, the last ones of each event. No foreign key: it would cost each change of the outbox's rows.
CREATE TABLE ${names.attempts} (
  outbox_id bigint NOT NULL,
  id bigint GENERATED ALWAYS AS IDENTITY,
  at timestamptz NOT NULL,
  error text NOT NULL,
  next_attempt_at timestamptz,
  PRIMARY KEY (outbox_id, id)
);

-- What was done by hand. Rows that were discarded are kept whole, their payloads as they were: json, not jsonb.
CREATE TABLE ${names.audit} (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at timestamptz NOT NULL,
  action text NOT NULL,
  actor text NOT NULL,
  reason text NOT NULL,
  event_id text COLLATE "C",
  filter json,
  affected integer,
  discarded json
);
`
