/** What happened, as the writers, the database and the broker tell it; and what of it must not be. */

/** What a writer says of one of its transactions. */
export interface Transaction {
  readonly writer: string
  /** In the order of the writer. */
  readonly number: number
  /** The events that the transaction keeps, in its order. */
  readonly kept: ReadonlyArray<{ readonly id: string; readonly key: string }>
  /** The events of savepoints that were rolled back. */
  readonly dropped: ReadonlyArray<string>
  /** `unknown`: the connection was lost at the commit, or the writer was killed. */
  readonly end: "committed" | "rolledBack" | "unknown"
}

/** A row of the outbox, in the order of the ids. */
export interface Row {
  readonly eventId: string
  readonly key: string
  readonly version: number | undefined
  readonly parked: boolean
}

/** A message of the stream, in the order of the sequences. */
export interface Message {
  readonly sequence: number
  readonly eventId: string
}

export interface History {
  readonly transactions: ReadonlyArray<Transaction>
  readonly rows: ReadonlyArray<Row>
  readonly messages: ReadonlyArray<Message>
}

/** Everything that breaks a promise, one line each, the same thing once. */
export const violations = ({ messages, rows, transactions }: History): ReadonlyArray<string> => {
  const found: Array<string> = []
  const byId = new Map(rows.map((row) => [row.eventId, row]))
  const known = new Set<string>()

  for (const { dropped, end, kept, number, writer } of transactions) {
    const present = kept.filter(({ id }) => byId.has(id)).length
    const name = `transaction ${number} of ${writer}`
    if (end === "committed" && present < kept.length) {
      found.push(`lost: ${name} was committed, and ${kept.length - present} of its events are not in the outbox`)
    }
    if (end === "rolledBack" && present > 0) found.push(`invented: ${name} was rolled back, and is in the outbox`)
    if (end === "unknown" && present > 0 && present < kept.length) found.push(`torn: ${name} is in the outbox in part`)
    for (const id of dropped) if (byId.has(id)) found.push(`invented: ${id} of ${name} was rolled back to a savepoint`)
    for (const { id } of kept) known.add(id)
  }
  for (const { eventId } of rows) if (!known.has(eventId)) found.push(`invented: nobody appended ${eventId}`)

  const copies = new Map<string, Array<number>>()
  for (const { eventId, sequence } of messages) copies.set(eventId, [...(copies.get(eventId) ?? []), sequence])
  for (const [id, sequences] of copies) {
    if (!byId.has(id)) found.push(`invented: ${id} is in the feed, and was never committed`)
    if (sequences.length > 1) found.push(`doubled: ${id} is in the feed at ${sequences.join(", ")}`)
  }
  const last = new Map<string, number>()
  for (const { eventId, key, parked, version } of rows) {
    const first = copies.get(eventId)?.[0]
    if (parked) found.push(`parked: ${eventId}`)
    else if (first === undefined) found.push(`lost: ${eventId} is not in the feed`)
    else if (version === undefined) found.push(`unrecorded: ${eventId} is in the feed at ${first}`)
    else if (version !== first)
      found.push(`misrecorded: ${eventId} is in the feed at ${first}, and recorded as ${version}`)
    if (first === undefined) continue
    const before = last.get(key) ?? 0
    if (first < before)
      found.push(`reordered: ${eventId} of key ${key} is in the feed at ${first}, a former one at ${before}`)
    last.set(key, Math.max(before, first))
  }

  // Where one writer alone writes a key, its commits are the key's.
  const positions = new Map(rows.map(({ eventId }, position) => [eventId, position]))
  const writersOf = new Map<string, Set<string>>()
  for (const { kept, writer } of transactions) {
    for (const { key } of kept) writersOf.set(key, (writersOf.get(key) ?? new Set()).add(writer))
  }
  const lastPosition = new Map<string, number>()
  for (const { kept } of transactions.toSorted((one, other) => one.number - other.number)) {
    for (const { id, key } of kept) {
      const position = positions.get(id)
      if (position === undefined || writersOf.get(key)!.size > 1) continue
      if (position < (lastPosition.get(key) ?? -1))
        found.push(`reordered: ${id} of key ${key} is in the outbox before one that was committed earlier`)
      lastPosition.set(key, position)
    }
  }
  return found
}
