import { Effect, Exit, Scope } from "effect"
import type * as Pg from "pg"
import type { ControlVersion, OutboxStore } from "../../../../src/index.js"
import * as Claim from "../../../../src/postgres/internal/claim.js"
import * as Positions from "../../../../src/postgres/internal/positions.js"
import * as Probe from "../../../../src/postgres/internal/probe.js"
import { queries, type Session } from "../../../../src/postgres/internal/session.js"
import type { Names } from "../../../../src/postgres/internal/names.js"
import { batch, type Claimed, type Look, type Variant, type Worker } from "../variant.js"

const sessionOf = (client: Pg.Client): Session => ({ ...queries(client, () => {}), isBroken: () => false })

/** What pumps of one process have learnt of an outbox, as theirs have. */
const learnt = new Map<string, Positions.Positions>()

const positionsOf = ({ schema }: Names): Positions.Positions => {
  const positions = learnt.get(schema) ?? Positions.make()
  learnt.set(schema, positions)
  return positions
}

const worker = (client: Pg.Client, names: Names): Worker => {
  const claim = Claim.make(names, positionsOf(names), Effect.succeed(sessionOf(client)))
  const scopes = new Map<number, { readonly scope: Scope.CloseableScope; readonly claim: OutboxStore.Claim }>()
  return {
    claim: async (lane) => {
      const scope = await Effect.runPromise(Scope.make())
      const result = await Effect.runPromise(
        Scope.extend(
          claim({
            lanes: [lane],
            now: Date.now(),
            limit: batch,
            maxBytes: 4 * 1024 * 1024,
            holdFor: 10_000,
            afterParked: "pass"
          }),
          scope
        )
      )
      if (result._tag !== "Claim") {
        await Effect.runPromise(Scope.close(scope, Exit.void))
        return { ids: [], drawn: "0", xmin: "0" }
      }
      scopes.set(lane, { scope, claim: result })
      return { ids: result.rows.map(({ id }) => id), drawn: "0", xmin: "0" }
    },
    settle: async (lane, { ids }: Claimed, versions) => {
      const { claim, scope } = scopes.get(lane)!
      scopes.delete(lane)
      await Effect.runPromise(
        Effect.zipRight(
          claim.settle({
            now: Date.now(),
            published: ids.map((id, index) => ({ id, version: versions[index]! as ControlVersion.ControlVersion })),
            failed: [],
            parked: []
          }),
          Scope.close(scope, Exit.void)
        )
      )
    },
    release: async (lane) => {
      const { scope } = scopes.get(lane)!
      scopes.delete(lane)
      await Effect.runPromise(Scope.close(scope, Exit.void))
    }
  }
}

const look = (client: Pg.Client, names: Names): Look => {
  const session = sessionOf(client)
  const lookWith = async (positions: Positions.Positions) => {
    const probe = await Effect.runPromise(
      Probe.make(names, positions, (use) => use(session))({ afterParked: "pass", now: Date.now() })
    )
    return probe.lanes.length
  }
  return { learnt: () => lookWith(positionsOf(names)), fresh: () => lookWith(Positions.make()) }
}

/** Today's schema and today's code: an update a row, which the predicates of three indexes keep from being HOT. */
export const today: Variant = {
  name: "today",
  title: "an update a row",
  create: () => "",
  tables: ({ outbox }) => [outbox],
  worker,
  look,
  fail: ({
    outbox
  }) => `UPDATE ${outbox} SET next_attempt_at = $2, parked_at = CASE WHEN $2::timestamptz IS NULL THEN now() END
    WHERE event_id = $1`,
  redrive: ({ outbox }) => `UPDATE ${outbox} SET parked_at = NULL, next_attempt_at = NULL WHERE event_id = $1`,
  remove: ({ outbox }) => `DELETE FROM ${outbox} WHERE id BETWEEN $1 AND $2`,
  publishAll: () => "",
  parkHeads: ({ outbox }) => `UPDATE ${outbox} SET parked_at = now(), last_error = 'parked', attempt_count = 1
    WHERE id IN (SELECT min(id) FROM ${outbox} WHERE published_at IS NULL GROUP BY lane)`
}
