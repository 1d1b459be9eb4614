import * as Lane from "../../Lane.js"

/**
 * Where each lane's pending rows start, so that probes and claims need not walk over the index entries of published
 * rows, which stay for as long as an old snapshot keeps vacuum from removing them.
 *
 * A start may pass only ids that are *decided*: no open transaction holds one, and so none can still appear. Ids up to
 * `drawn` are decided once every transaction that drew one of them has ended. Each got its xid before it drew, and so
 * has a lower one than any transaction that got its xid after `drawn` was read: the `fence`. It is passed when a
 * snapshot's xmin has reached it. (A snapshot's xmax will not do for a fence: it is the first xid that had not
 * *ended*, and transactions with higher ones may be open.)
 */
export interface Positions {
  /** The first id that can be pending, for each lane. */
  readonly starts: () => ReadonlyArray<string>
  readonly startOf: (lane: Lane.Lane) => string
  /** Records a transaction whose xid was assigned after `drawn` was the last drawn id. */
  readonly fence: (drawn: bigint, xid: bigint) => void
  /** Records what one snapshot saw. */
  readonly advance: (seen: Snapshot, now: number) => void
  /** Forgets everything: a new connection may lead to an older state of the database. */
  readonly clear: () => void
}

export interface Snapshot {
  readonly xmin: bigint
  /** The last id that was drawn. */
  readonly drawn: bigint
  /**
   * The first id of each lane that is pending or parked; lanes without one are absent. A parked row can be redriven
   * any time, also by hand, and has its place in the order then.
   */
  readonly heads: ReadonlyMap<Lane.Lane, bigint>
}

/** Milliseconds after which starts are forgotten, for published rows that an operator made pending again by SQL. */
const maxAge = 30_000

const zeros = (): Array<bigint> => Array.from({ length: Lane.count }, () => 0n)

export const make = (): Positions => {
  let starts = zeros()
  let decided = 0n
  // The xid that a snapshot's xmin has to reach to show every row up to `decided`. Answers can come out of order: an
  // older snapshot does not show a row that was committed since, although a newer one has decided its id.
  let decidedBy = 0n
  let fence: { readonly drawn: bigint; readonly xid: bigint } | undefined
  let forgottenAt = 0
  const clear = () => {
    starts = zeros()
    decided = 0n
    decidedBy = 0n
    fence = undefined
  }
  return {
    starts: () => starts.map(String),
    startOf: (lane) => String(starts[lane]),
    fence: (drawn, xid) => {
      // A fence that is always replaced before it is passed would never be passed.
      if (fence === undefined && drawn > decided) fence = { drawn, xid }
    },
    advance: ({ drawn, heads, xmin }, now) => {
      // The sequence was set back: nothing that is known about its ids holds any more.
      if (drawn < decided || (fence !== undefined && drawn < fence.drawn)) clear()
      if (fence !== undefined && xmin >= fence.xid) {
        decided = fence.drawn
        decidedBy = fence.xid
        fence = undefined
      }
      // Clocks go backwards, too.
      if (Math.abs(now - forgottenAt) >= maxAge) {
        forgottenAt = now
        starts = zeros()
        return
      }
      if (xmin < decidedBy) return
      starts = starts.map((start, lane) => {
        const head = heads.get(lane)
        const next = head === undefined || head > decided ? decided + 1n : head
        return next > start ? next : start
      })
    },
    clear
  }
}
