import type * as Pg from "pg"
import type { Names } from "../../../src/postgres/internal/names.js"

/** Rows of a batch. */
export const batch = 500

/** What a claim has returned, and what its settlement has to know. */
export interface Claimed {
  readonly ids: ReadonlyArray<string>
  /** The last id that was drawn when the claim looked. */
  readonly drawn: string
  /** Below it every transaction had ended. */
  readonly xmin: string
  /** The first pending row that the claim left as its key waits: a start must not pass it. */
  readonly held?: string | undefined
}

/** What one connection of a pump does. */
export interface Worker {
  /** One round trip: begins, locks the lane, reads its next rows. */
  readonly claim: (lane: number) => Promise<Claimed>
  /** One round trip: writes what was published under which version, and commits. */
  readonly settle: (lane: number, claimed: Claimed, versions: ReadonlyArray<number>) => Promise<void>
  /** Ends a claim without a trace. */
  readonly release: (lane: number) => Promise<void>
}

/** A look at all lanes. `learnt` is what a running pump does, the other one what it does once it has started. */
export interface Look {
  readonly fresh: () => Promise<number>
  readonly learnt: () => Promise<number>
}

/** A way to keep the rows of an outbox. */
export interface Variant {
  readonly name: string
  readonly title: string
  /** In an outbox that has today's migrations. */
  readonly create: (names: Names) => string
  /** What is vacuumed and whose size counts. */
  readonly tables: (names: Names) => ReadonlyArray<string>
  readonly worker: (client: Pg.Client, names: Names) => Worker
  readonly look: (client: Pg.Client, names: Names) => Look
  /** What all rows have been published leaves beside them. */
  readonly publishAll: (names: Names) => string
  /** Parks the first row of each lane. */
  readonly parkHeads: (names: Names) => string
  /** Removes the events with the ids from `$1` to `$2`. */
  readonly remove: (names: Names) => string
  /** An attempt for the event `$1` failed: the next one is at `$2`, or, where that is NULL, the event is parked. */
  readonly fail: (names: Names) => string
  /** Makes the parked event `$1` pending again, in its old place. */
  readonly redrive: (names: Names) => string
  /** Makes the published event `$1` pending again by hand, where a start that has passed it learns of that. */
  readonly reopen?: (names: Names) => string
  /** Work that is put off until the pump is idle. */
  readonly fold?: (client: Pg.Client, names: Names) => Promise<void>
}

/** The rows of each statement of a script. */
export const script = async (client: Pg.Client, text: string): Promise<ReadonlyArray<ReadonlyArray<unknown>>> => {
  const results = (await client.query(text)) as unknown as Pg.QueryResult | ReadonlyArray<Pg.QueryResult>
  return (Array.isArray(results) ? (results as ReadonlyArray<Pg.QueryResult>) : [results as Pg.QueryResult]).map(
    ({ rows }) => rows as ReadonlyArray<unknown>
  )
}
