/** For how long a node has known of the oldest event that it has not applied. */

/** Versions that became known at an instant; `undefined` for what was there before the node looked first. */
interface Arrival {
  readonly upTo: number
  readonly at: number | undefined
}

/** Arrivals that are remembered. */
const most = 1_000

/** Arrivals within this are one, in milliseconds. */
const together = 100

export interface Lagging {
  readonly watch: (position: number, newest: number, now: number) => void
  /** In milliseconds: 0 if nothing lacks; `undefined` if what lacks was there before. */
  readonly behindFor: (position: number, now: number) => number | undefined
}

export const make = (): Lagging => {
  let arrivals: ReadonlyArray<Arrival> = []
  let newestSeen: number | undefined
  return {
    watch: (position, newest, now) => {
      const left = arrivals.filter(({ upTo }) => upTo > position)
      // A feed that begins again: what was known is of another one.
      const isFirst = newestSeen === undefined || newest < newestSeen
      const isNew = isFirst ? newest > position : newest > newestSeen! && newest > position
      newestSeen = newest
      if (isFirst) {
        arrivals = isNew ? [{ upTo: newest, at: undefined }] : []
        return
      }
      const last = left[left.length - 1]
      if (!isNew) arrivals = left
      else if (last?.at !== undefined && (now - last.at < together || left.length >= most)) {
        arrivals = [...left.slice(0, -1), { upTo: newest, at: last.at }]
      } else arrivals = [...left, { upTo: newest, at: now }]
    },
    behindFor: (position, now) => {
      const oldest = arrivals.find(({ upTo }) => upTo > position)
      if (oldest === undefined) return 0
      return oldest.at === undefined ? undefined : Math.max(0, now - oldest.at)
    }
  }
}
