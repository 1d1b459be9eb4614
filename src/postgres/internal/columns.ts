/** Parts of SQL on the outbox's table that several modules use. */

/** To be published: what the indexes of pumps hold. */
export const pending = "published_at IS NULL AND parked_at IS NULL"

export const waiting = `${pending} AND next_attempt_at IS NOT NULL`

export const parked = "published_at IS NULL AND parked_at IS NOT NULL"

/** A column as milliseconds since the epoch. */
export const milliseconds = (column: string): string => `(extract(epoch FROM ${column}) * 1000)::float8`

/** Milliseconds since the epoch as an instant. */
export const instant = (parameter: string): string => `to_timestamp(${parameter}::float8 / 1000)`

/** The last id that was drawn. */
export const drawn = (sequence: string): string =>
  `(SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM ${sequence})`
