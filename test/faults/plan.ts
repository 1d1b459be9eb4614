import { Chunk, Effect, Random } from "effect"

/** A fault, done to the `victim`-th `serve` where it is done to one. */
export type Fault =
  /** `kill -9` at any moment: after an append's commit, most of the time. */
  | { readonly _tag: "kill"; readonly victim: number; readonly down: number }
  /** Frozen for longer than every timeout, and woken. */
  | { readonly _tag: "freeze"; readonly victim: number; readonly millis: number }
  | { readonly _tag: "terminate"; readonly victim: number }
  /** `kill -9` after the claim: what it publishes does not arrive. */
  | { readonly _tag: "killClaimed"; readonly victim: number }
  /** `kill -9` after publishing: no acknowledgement arrives. `down`: how long nobody publishes then. */
  | { readonly _tag: "killPublished"; readonly victim: number; readonly down: number }
  /** `kill -9` after the acknowledgement: no write-back arrives. */
  | { readonly _tag: "killAcknowledged"; readonly victim: number; readonly down: number }
  /** SIGTERM, and `kill -9` while it waits for acknowledgements. */
  | { readonly _tag: "killDraining"; readonly victim: number }
  | { readonly _tag: "cut"; readonly victim: number; readonly server: Server }
  /** Traffic held back, and let go. */
  | { readonly _tag: "hold"; readonly victim: number; readonly server: Server; readonly millis: number }
  /** Nothing arrives and nothing ends, the listening connection's included. */
  | { readonly _tag: "halfOpen"; readonly victim: number; readonly server: Server; readonly millis: number }
  | { readonly _tag: "crashDatabase" }
  | { readonly _tag: "crashBroker"; readonly down: number }
  /** Of a cluster: one of the servers that have the stream is killed, and comes back. */
  | { readonly _tag: "killReplica"; readonly role: "leader" | "follower"; readonly down: number }
  /** Of a cluster: another server leads the stream. */
  | { readonly _tag: "stepDown" }
  | { readonly _tag: "killWriter"; readonly victim: number }
  /** The stream is deleted, made anew and filled from the outbox. */
  | { readonly _tag: "restore" }

export type Server = "database" | "broker"

export type Publish = "message" | "batch" | "auto"

export interface Plan {
  readonly seed: string
  readonly deduplication: "lookup" | "subject"
  readonly cluster: boolean
  /** How the pumps publish. */
  readonly publish: Publish
  /** How many faults are injected however long they take. */
  readonly least: number
  readonly faults: ReadonlyArray<{ readonly after: number; readonly fault: Fault }>
}

export const serves = 3
export const writers = 3

/** Longer than the server keeps a lane for a silent holder: the publish timeout of 2 seconds, and 5. */
const longerThanTimeouts = 8_000

const anyFault = (cluster: boolean): Effect.Effect<Fault> =>
  Effect.gen(function* () {
    const victim = yield* Random.nextIntBetween(0, serves)
    const server: Server = (yield* Random.nextBoolean) ? "database" : "broker"
    const between = (least: number, most: number) => Random.nextIntBetween(least, most)
    const down = between(0, 4_000)
    const ofCluster: ReadonlyArray<Effect.Effect<Fault>> = [
      Effect.map(down, (down) => ({ _tag: "killReplica", role: "leader", down })),
      Effect.map(down, (down) => ({ _tag: "killReplica", role: "follower", down })),
      Effect.succeed({ _tag: "stepDown" })
    ]
    const faults: ReadonlyArray<Effect.Effect<Fault>> = [
      Effect.map(between(0, 1_000), (down) => ({ _tag: "kill", victim, down })),
      Effect.succeed({ _tag: "freeze", victim, millis: longerThanTimeouts }),
      Effect.succeed({ _tag: "terminate", victim }),
      Effect.succeed({ _tag: "killClaimed", victim }),
      Effect.map(between(0, 2), (long) => ({ _tag: "killPublished", victim, down: long * 4_000 })),
      Effect.map(between(0, 2), (long) => ({ _tag: "killAcknowledged", victim, down: long * 4_000 })),
      Effect.succeed({ _tag: "killDraining", victim }),
      Effect.succeed({ _tag: "cut", victim, server }),
      Effect.map(between(100, 1_000), (millis) => ({ _tag: "hold", victim, server, millis })),
      Effect.map(between(1_000, 5_000), (millis) => ({ _tag: "halfOpen", victim, server, millis })),
      Effect.succeed({ _tag: "crashDatabase" }),
      Effect.map(between(0, 4_000), (down) => ({ _tag: "crashBroker", down })),
      Effect.map(between(0, writers), (victim) => ({ _tag: "killWriter", victim })),
      Effect.succeed({ _tag: "restore" }),
      ...(cluster ? ofCluster : [])
    ]
    return yield* faults[yield* between(0, faults.length)]!
  })

/** What every plan begins with: one of each that a promise hangs on. */
const always: ReadonlyArray<Fault> = [
  { _tag: "killAcknowledged", victim: 0, down: 0 },
  { _tag: "killPublished", victim: 1, down: 4_000 },
  { _tag: "crashDatabase" },
  { _tag: "crashBroker", down: 500 },
  { _tag: "kill", victim: 2, down: 0 },
  { _tag: "terminate", victim: 0 },
  { _tag: "restore" }
]

const alwaysOfCluster: ReadonlyArray<Fault> = [
  { _tag: "killReplica", role: "follower", down: 4_000 },
  { _tag: "killReplica", role: "leader", down: 1_000 },
  { _tag: "stepDown" }
]

/** The plan of a seed: the same one for the same seed. `cluster`: the broker is three servers. */
export const make = (seed: string, millis: number, cluster = false, publish: Publish = "message"): Plan =>
  Effect.runSync(
    Effect.gen(function* () {
      const deduplication = (yield* Random.nextBoolean) ? "lookup" : "subject"
      const faults: Array<Plan["faults"][number]> = []
      const first = yield* Random.shuffle(cluster ? [...always, ...alwaysOfCluster] : always)
      for (const fault of first) faults.push({ after: yield* Random.nextIntBetween(200, 1_000), fault })
      // Faults take their time, too: a run stops at the end of its time, wherever the plan is.
      const count = Math.ceil(millis / 500)
      while (faults.length < count) {
        faults.push({ after: yield* Random.nextIntBetween(200, 2_000), fault: yield* anyFault(cluster) })
      }
      return { seed, deduplication, cluster, publish, least: Chunk.size(first), faults } satisfies Plan
    }).pipe(Effect.withRandom(Random.make(seed)))
  )
