import { quote } from "./names.js"

/** Migration 1: what a node has applied, and how far it is. */
export const initial = (schema: string): string => `
CREATE TABLE ${quote(schema)}.applied_events (
  event_id text COLLATE "C" PRIMARY KEY,
  -- NULL for what a snapshot held before the feed did.
  control_version bigint CHECK (control_version > 0),
  applied_at timestamptz NOT NULL,
  -- Why the event was set aside; NULL where it was applied.
  set_aside text
);

CREATE INDEX applied_events_control_version ON ${quote(schema)}.applied_events (control_version);

CREATE INDEX applied_events_set_aside ON ${quote(schema)}.applied_events (applied_at) WHERE set_aside IS NOT NULL;

-- One row. Who applies an event holds its lock, so that two appliers take turns.
CREATE TABLE ${quote(schema)}.applied_position (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  feed text NOT NULL,
  control_version bigint NOT NULL CHECK (control_version >= 0),
  -- What was applied after this version has its mark; up to it marks were pruned, or a snapshot came in their place.
  marked_after bigint NOT NULL CHECK (marked_after >= 0)
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

INSERT INTO ${quote(schema)}.applied_position (feed, control_version, marked_after) VALUES ('', 0, 0);
`
