import * as Pg from "pg"
import { quote, type Names } from "../../../src/postgres/internal/names.js"
import { outbox, verify, type Server } from "./cycle.js"
import { batch, type Variant, type Worker } from "./variant.js"

/** What could publish an event never, twice or too early. Each ends with every event published once, in its key's order. */
const checks: Readonly<Record<string, (stage: Stage) => Promise<void>>> = {
  "a lower id commits after the start could have passed it": async ({ append, appendWith, drain, other, taken }) => {
    // Its id lies between those of one batch.
    await append(10)
    await other.query("BEGIN")
    await appendWith(other, ["late"], "early")
    await append(3 * batch)
    await drain()
    await append(3 * batch)
    await drain()
    taken(10 + 6 * batch)
    await other.query("COMMIT")
    await drain()
    await append(2 * batch)
    await drain()
  },
  "a claim's connection dies before its receipt, and after it": async ({
    append,
    claimAndDie,
    drain,
    settleAndDie
  }) => {
    await append(2 * batch)
    await claimAndDie()
    await settleAndDie()
    await drain()
  },
  "a parked event is redriven after the start has passed it": async (stage) => {
    const { append, appendWith, client, drain, fail, first, redrive } = stage
    await appendWith(client, ["parked"], "p")
    await fail("parked", null)
    for (let n = 0; n < 3; n++) {
      await append(2 * batch)
      await drain()
    }
    await redrive("parked")
    await appendWith(client, ["after"], "p")
    await first("parked")
    await drain()
  },
  "a published event is made pending by hand": async ({ append, appendWith, client, drain, first, reopen }) => {
    await appendWith(client, ["again"], "a")
    for (let n = 0; n < 3; n++) {
      await append(2 * batch)
      await drain()
    }
    if (!(await reopen("again"))) return
    await appendWith(client, ["later"], "a")
    await first("again")
    await drain()
  },
  "a key waits while its lane goes on": async ({ append, appendWith, client, drain, fail, first, taken }) => {
    await appendWith(client, ["waits", "behind"], "w")
    await fail("waits", new Date(Date.now() + 3_600_000))
    for (let n = 0; n < 3; n++) {
      await append(2 * batch)
      await drain()
    }
    taken(6 * batch)
    await fail("waits", new Date(Date.now() - 1_000))
    await first("waits")
    await drain()
  }
}

interface Stage {
  readonly client: Pg.Client
  readonly other: Pg.Client
  /** Appends events of one other key of the same lane. */
  readonly append: (events: number) => Promise<void>
  readonly appendWith: (client: Pg.Client, eventIds: ReadonlyArray<string>, key: string) => Promise<void>
  readonly drain: () => Promise<void>
  readonly claimAndDie: () => Promise<void>
  readonly settleAndDie: () => Promise<void>
  readonly fail: (eventId: string, next: Date | null) => Promise<unknown>
  readonly redrive: (eventId: string) => Promise<unknown>
  /** Whether the schema takes it. */
  readonly reopen: (eventId: string) => Promise<boolean>
  /** The first event that a claim would return now. */
  readonly first: (eventId: string) => Promise<void>
  /** How many were published until now. */
  readonly taken: (events: number) => void
}

/** Keys of one lane, each in a bucket of its own, so that open appends do not wait for one another. */
const keysOfLane = async (client: Pg.Client, count: number) => {
  const { rows } = await client.query<{ lane: number; keys: ReadonlyArray<string> }>(
    `SELECT lane, (array_agg(key))[1:${count}] AS keys FROM (
        SELECT DISTINCT ON (hashtext(key COLLATE "C") & 4095) key, hashtext(key COLLATE "C") & 63 AS lane
        FROM (SELECT 'k' || n AS key FROM generate_series(1, 5000) n) named
      ) keys GROUP BY lane HAVING count(*) >= ${count} ORDER BY lane LIMIT 1`
  )
  return rows[0]!
}

const stage = async (server: Server, variant: Variant, names: Names) => {
  const connect = async () => {
    const client = new Pg.Client({ connectionString: server.databaseUrl })
    // Some are ended on purpose.
    client.on("error", () => {})
    await client.connect()
    return client
  }
  const [client, other] = [await connect(), await connect()]
  const { keys, lane } = await keysOfLane(client, 4)
  const known = new Map<string, string>()
  const keyOf = (name: string): string => {
    const key = known.get(name) ?? keys[known.size]!
    known.set(name, key)
    return key
  }
  let events = 0
  let published = 0
  let version = 0
  const worker: Worker = variant.worker(client, names)
  const look = variant.look(client, names)
  const insert = (by: Pg.Client, eventIds: ReadonlyArray<string>, key: string) => {
    events += eventIds.length
    return by.query(
      `INSERT INTO ${names.outbox} (event_id, event_type, payload_json, ordering_key) SELECT id, 'x', '{}', $2 FROM unnest($1::text[]) id`,
      [eventIds, keyOf(key)]
    )
  }
  const expect = (condition: boolean, message: string) => {
    if (!condition) throw new Error(`${variant.name}: ${message}`)
  }
  const end = async (by: Pg.Client) => {
    const { rows } = await by.query<{ pid: number }>("SELECT pg_backend_pid() AS pid")
    await server.client.query("SELECT pg_terminate_backend($1, 5000)", [rows[0]!.pid])
  }
  const found: Stage = {
    client,
    other,
    append: async (count) => {
      await insert(
        client,
        Array.from({ length: count }, (_, n) => `e-${events + n}`),
        "common"
      )
    },
    appendWith: async (by, eventIds, key) => {
      await insert(by, eventIds, key)
    },
    drain: async () => {
      for (;;) {
        const claimed = await worker.claim(lane)
        if (claimed.ids.length === 0) return
        await worker.settle(
          lane,
          claimed,
          claimed.ids.map(() => ++version)
        )
        published += claimed.ids.length
        await look.learnt()
      }
    },
    claimAndDie: async () => {
      const doomed = await connect()
      const { ids } = await variant.worker(doomed, names).claim(lane)
      expect(ids.length === batch, `${ids.length} rows were claimed`)
      await end(doomed)
    },
    settleAndDie: async () => {
      const doomed = await connect()
      const mortal = variant.worker(doomed, names)
      const claimed = await mortal.claim(lane)
      await mortal.settle(
        lane,
        claimed,
        claimed.ids.map(() => ++version)
      )
      published += claimed.ids.length
      await end(doomed)
    },
    fail: (eventId, next) => client.query(variant.fail(names), [eventId, next]),
    redrive: (eventId) => client.query(variant.redrive(names), [eventId]),
    reopen: async (eventId) => {
      if (variant.reopen === undefined) return false
      await client.query(variant.reopen(names), [eventId])
      published--
      return true
    },
    first: async (eventId) => {
      const claimed = await worker.claim(lane)
      await worker.release(lane)
      const { rows } = await client.query<{ event_id: string }>(`SELECT event_id FROM ${names.outbox} WHERE id = $1`, [
        claimed.ids[0]
      ])
      expect(rows[0]?.event_id === eventId, `${rows[0]?.event_id} is first, not ${eventId}`)
    },
    taken: (count) => {
      expect(published === count, `${published} events were published, not ${count}`)
    }
  }
  return {
    found,
    close: async () => {
      await client.end()
      await other.end()
    },
    check: async () => {
      expect(published === events, `${published} of ${events} events were published`)
      await variant.fold?.(client, names)
      await verify(server.client, names, events)
    }
  }
}

/** Runs each interleaving on a variant, and answers what of it does not hold. */
export const interleavings = async (server: Server, variant: Variant): Promise<Readonly<Record<string, string>>> => {
  const answers: Record<string, string> = {}
  for (const [what, run] of Object.entries(checks)) {
    const names = await outbox(server, variant)
    const { check, close, found } = await stage(server, variant, names)
    try {
      await run(found)
      await check()
      answers[what] = "holds"
    } catch (error) {
      answers[what] = error instanceof Error ? error.message : String(error)
    } finally {
      await close()
      await server.client.query(`DROP SCHEMA ${quote(names.schema)} CASCADE`)
    }
  }
  return answers
}
