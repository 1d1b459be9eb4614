import { createHash } from "node:crypto"

/** Quotes an identifier. */
export const quote = (identifier: string): string => `"${identifier.replaceAll('"', '""')}"`

/** Quotes a string, in a form that means the same under every `standard_conforming_strings`. */
export const literal = (value: string): string =>
  value.includes("\\")
    ? `E'${value.replaceAll("\\", "\\\\").replaceAll("'", "''")}'`
    : `'${value.replaceAll("'", "''")}'`

/**
 * A qualified operator of pg_catalog, for statements in the application's transactions, which have the application's
 * search_path.
 */
export const op = (name: string): string => `OPERATOR(pg_catalog.${name})`

/** An integer array literal, for statements without parameters. The driver would escape each element. */
export const integers = (values: ReadonlyArray<string | number>): string => `{${values.join()}}`

/**
 * The first key of an advisory lock: the first four bytes of SHA-256 of `controlpublish.<kind>.<schema>`, as a signed
 * integer, so that two outboxes in one database do not meet.
 */
const lockClass = (kind: "lane" | "order" | "arm", schema: string): number =>
  createHash("sha256").update(`controlpublish.${kind}.${schema}`).digest().readInt32BE(0)

/** The names of an outbox in SQL. */
export interface Names {
  readonly schema: string
  readonly table: string
  /** Qualified and quoted. */
  readonly outbox: string
  readonly sequence: string
  readonly attempts: string
  readonly audit: string
  /** Locks a lane for one pump; the second key is the lane. */
  readonly laneLock: number
  /** Orders the transactions of a key; the second key is its bucket, see `buckets`; -1 for a migration, -2 for a prune. */
  readonly orderLock: number
  /** Held exclusively by the pump that waits for a wake-up, shared by appends that need not notify; second key 0. */
  readonly armLock: number
  readonly channel: string
}

/**
 * How many buckets ordering keys are hashed to for their lock. One lock a key exhausted the server's lock table when
 * one transaction appended for 20,000 keys.
 */
export const buckets = 4096

export const make = (schema: string): Names => {
  const armLock = lockClass("arm", schema)
  return {
    schema,
    table: "control_events_outbox",
    outbox: `${quote(schema)}.control_events_outbox`,
    sequence: `${quote(schema)}.control_events_outbox_id_seq`,
    attempts: `${quote(schema)}.control_events_attempts`,
    audit: `${quote(schema)}.control_events_audit`,
    laneLock: lockClass("lane", schema),
    orderLock: lockClass("order", schema),
    armLock,
    channel: `controlpublish_${(armLock >>> 0).toString(16).padStart(8, "0")}`
  }
}

/** The bucket of an ordering key, in SQL. */
export const bucketOf = (key: string, and = "&"): string => `hashtext(${key}) ${and} ${buckets - 1}`
