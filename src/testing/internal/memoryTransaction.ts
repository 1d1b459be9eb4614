import * as Context from "effect/Context"
import type { NewRow } from "../../OutboxStore.js"

export interface Transaction {
  /** The rows of the store that began the transaction: whose it is. */
  readonly owner: ReadonlyMap<number, unknown>
  readonly buffer: Array<NewRow>
  readonly savepoints: Map<number, number>
}

export class MemoryTransaction extends Context.Tag("controlpublish/testing/MemoryTransaction")<
  MemoryTransaction,
  readonly [transaction: Transaction, depth: number]
>() {}
