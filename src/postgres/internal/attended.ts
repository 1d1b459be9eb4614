import { quote, type Names } from "./names.js"

/** The pumps' reports, qualified. */
export const pumps = ({ schema }: Names): string => `${quote(schema)}.control_events_pumps`

/** Seconds without a report after which a pump counts as lost. */
export const lostAfter = 30

/**
 * Migration 5: each pump reports its state every few seconds, in one row that is updated in place. Does not touch the
 * outbox's own table.
 */
export const attended = (names: Names): string => `
CREATE TABLE ${pumps(names)} (
  id text COLLATE "C" PRIMARY KEY,
  seen_at timestamptz NOT NULL,
  report json NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 100);
`
