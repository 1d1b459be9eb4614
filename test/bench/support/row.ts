/** What rows run on. */
export interface Bench {
  readonly databaseUrl: string
  readonly natsUrl: string
  /** The process of that server. */
  readonly natsPid: number
  /** The same with a server that has atomic batches, if there is one here. */
  readonly withBatches: Bench | undefined
  readonly rounds: number
  /** Sizes are divided by this, to try the benchmark out. */
  readonly scale: number
  /** A name that was not used yet, for a schema or a stream. */
  readonly fresh: () => string
  readonly log: (line: string) => void
}

/** One line of the table. */
export interface Line {
  readonly row: string
  readonly unit: string
  readonly ours: ReadonlyArray<number>
  readonly against?: { readonly what: string; readonly samples: ReadonlyArray<number> }
  /** Absent: the row is there to be read. */
  readonly target?: { readonly text: string; readonly met: boolean }
}

export interface Row {
  /** By which it is chosen. */
  readonly name: string
  readonly run: (bench: Bench) => Promise<ReadonlyArray<Line>>
}

export const median = (samples: ReadonlyArray<number>): number => {
  const sorted = samples.toSorted((one, other) => one - other)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

export const quantile = (samples: ReadonlyArray<number>, share: number): number =>
  samples.toSorted((one, other) => one - other)[Math.min(samples.length - 1, Math.floor(samples.length * share))]!

/** A ratio of medians against the least that is wanted. */
export const atLeast = (ours: ReadonlyArray<number>, theirs: ReadonlyArray<number>, ratio: number) => {
  const found = median(ours) / median(theirs)
  return { text: `${found.toFixed(2)} × (≥ ${ratio})`, met: found >= ratio }
}

export const below = (samples: ReadonlyArray<number>, limit: number, unit: string) => ({
  text: `< ${limit} ${unit}`,
  met: median(samples) < limit
})

/** Runs contestants in turn, each round beginning with another one. */
export const interleaved = async <Name extends string>(
  rounds: number,
  contestants: Readonly<Record<Name, () => Promise<number>>>
): Promise<Record<Name, Array<number>>> => {
  const names = Object.keys(contestants) as Array<Name>
  const samples = Object.fromEntries(names.map((name) => [name, [] as Array<number>])) as Record<Name, Array<number>>
  for (let round = 0; round < rounds; round++) {
    for (let turn = 0; turn < names.length; turn++) {
      const name = names[(round + turn) % names.length]!
      samples[name].push(await contestants[name]())
    }
  }
  return samples
}
