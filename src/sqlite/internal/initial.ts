/** Migration 1: what a node has applied, and how far it is. Instants are in milliseconds since the epoch. */
export const initial = [
  `CREATE TABLE applied_events (
    event_id TEXT PRIMARY KEY,
    -- The feed that the version belongs to. Both are NULL for what a snapshot held before the feed did.
    feed TEXT,
    control_version INTEGER CHECK (control_version > 0),
    applied_at INTEGER NOT NULL,
    -- Why the event was set aside; NULL where it was applied.
    set_aside TEXT
  ) WITHOUT ROWID`,

  `CREATE INDEX applied_events_control_version ON applied_events (control_version)`,

  `CREATE INDEX applied_events_set_aside ON applied_events (applied_at) WHERE set_aside IS NOT NULL`,

  // One row. Who applies an event writes it first, so that two appliers take turns.
  `CREATE TABLE applied_position (
    singleton INTEGER PRIMARY KEY CHECK (singleton = 1),
    feed TEXT NOT NULL,
    control_version INTEGER NOT NULL CHECK (control_version >= 0),
    -- What was applied after this version has its mark; up to it marks were pruned, or a snapshot came in their place.
    marked_after INTEGER NOT NULL CHECK (marked_after >= 0)
  )`,

  `INSERT INTO applied_position (singleton, feed, control_version, marked_after) VALUES (1, '', 0, 0)`
]
