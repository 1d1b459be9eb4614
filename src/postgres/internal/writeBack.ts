import * as Effect from "effect/Effect"
import type { OutboxError, Settlement } from "../../OutboxStore.js"
import { instant } from "./columns.js"
import { integers } from "./names.js"
import type * as Names from "./names.js"
import type * as Positions from "./positions.js"
import { rollback, type Session } from "./session.js"
import * as Settled from "./settled.js"

type Published = Pick<Settlement, "now" | "published">

/** The number of failed attempts kept per event. */
const keptAttempts = 20

const statements = ({ attempts, outbox }: Names.Names) => ({
  // One round trip as well. Contains only numbers, so it needs no parameters.
  writePublished: ({ now, published }: Published, condition = "") => `
    WITH written AS (
      UPDATE ${outbox} SET published_control_version = result.version, published_at = ${instant(String(now))},
        attempt_count = attempt_count + 1, last_attempt_at = ${instant(String(now))}, next_attempt_at = NULL,
        parked_at = NULL
      FROM unnest('${integers(published.map(({ id }) => id))}'::bigint[],
        '${integers(published.map(({ version }) => version))}'::bigint[]) AS result (id, version)
      WHERE ${outbox}.id = result.id${condition}
    )
    SELECT pg_current_xact_id()::text AS xid;
    COMMIT`,

  // $1 ids, $2 errors, $3 next attempts or NULL to park, $4 now
  writeFailed: `
    WITH result AS (
      SELECT id, error, ${instant("next_attempt_at")} AS next_attempt_at
      FROM unnest($1::bigint[], $2::text[], $3::float8[]) AS result (id, error, next_attempt_at)
    ), written AS (
      UPDATE ${outbox} SET last_error = result.error, attempt_count = attempt_count + 1,
        last_attempt_at = ${instant("$4")}, next_attempt_at = result.next_attempt_at,
        parked_at = CASE WHEN result.next_attempt_at IS NULL THEN ${instant("$4")} END
      FROM result WHERE ${outbox}.id = result.id
    ), forgotten AS (
      DELETE FROM ${attempts} USING result
      WHERE ${attempts}.outbox_id = result.id AND ${attempts}.id < (SELECT kept.id FROM ${attempts} kept
        WHERE kept.outbox_id = result.id ORDER BY kept.id DESC OFFSET ${keptAttempts - 2} LIMIT 1)
    )
    INSERT INTO ${attempts} (outbox_id, at, error, next_attempt_at)
    SELECT id, ${instant("$4")}, error, next_attempt_at FROM result`
})

interface WriteBack {
  /** Writes published rows in their own transaction. `drawn` is the last drawn id that the claim saw. */
  readonly record: (session: Session, drawn: string, published: Published) => Effect.Effect<void, OutboxError>
  /** Writes the outcomes of a claim's rows and ends its transaction. */
  readonly settle: (session: Session, drawn: string, settlement: Settlement) => Effect.Effect<void, OutboxError>
}

export const make = (names: Names.Names, positions: Positions.Positions): WriteBack => {
  const text = statements(names)

  const fence = (drawn: string, xid: unknown) =>
    positions.fence(BigInt(drawn), BigInt((xid as { readonly xid: string }).xid))

  return {
    record: (session, drawn, published) =>
      session
        .script(
          `${Settled.begin("READ COMMITTED READ WRITE", { idle: 0 })};
          ${text.writePublished(published, ` AND ${names.outbox}.published_at IS NULL`)}`
        )
        .pipe(
          Effect.tapError(() => rollback(session)),
          Effect.map((results) => fence(drawn, results.at(-2)![0]))
        ),

    settle: Effect.fnUntraced(function* (session, drawn, settlement) {
      const { failed, now, parked, published } = settlement
      const unpublished = [...failed, ...parked.map((row) => ({ ...row, nextAttemptAt: null }))]
      if (unpublished.length > 0) {
        yield* session.query(text.writeFailed, [
          unpublished.map((row) => row.id),
          unpublished.map((row) => row.error),
          unpublished.map((row) => row.nextAttemptAt),
          now
        ])
      }
      if (published.length === 0) {
        yield* session.query("COMMIT")
        return
      }
      const [[row] = []] = yield* session.script(text.writePublished(settlement))
      fence(drawn, row)
    })
  }
}
