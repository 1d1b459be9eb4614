/** What people do by way of the API is logged and, where it was refused or only looked at, written to the audit. */
import * as Effect from "effect/Effect"
import type { AuditAction, By, OutboxAdmin } from "../../OutboxAdmin.js"
import { Actor, Conflict } from "../AdminApi.js"
import { reading } from "./patience.js"

/** Who asks, with the reason. */
export const by = (reason: string): Effect.Effect<By, never, Actor> => Effect.map(Actor, (actor) => ({ actor, reason }))

/** Everything that is done by hand is logged, whether or not it could be done. */
const logged = (action: AuditAction, by: By, target: Readonly<Record<string, unknown>>, failure?: string) =>
  Effect.annotateLogs(
    failure === undefined
      ? Effect.logInfo(`By hand: ${action}`)
      : Effect.logWarning(`Not done by hand: ${action}: ${failure}`),
    { ...by, ...target }
  )

/** A refusal stands, whether or not it can be written down. */
const refused = (
  admin: OutboxAdmin["Type"],
  action: AuditAction,
  { actor, reason }: By,
  why: string,
  eventId?: string
) =>
  admin.record("refused", { actor, reason: `${action}: ${why} (${reason})` }, { eventId }).pipe(
    reading,
    Effect.catchAll(({ message }) => Effect.logWarning(`A refusal is missing in the audit: ${message}`))
  )

export const make = (admin: OutboxAdmin["Type"]) => ({
  done:
    (action: AuditAction, by: By, target: { readonly event_id?: string; readonly filter?: string } = {}) =>
    <A, E extends { readonly message: string }, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
      Effect.tapBoth(effect, {
        onSuccess: () => logged(action, by, target),
        onFailure: (error) =>
          Effect.zipRight(
            logged(action, by, target, error.message),
            error instanceof Conflict ? refused(admin, action, by, error.message, target.event_id) : Effect.void
          )
      }),

  /** What cannot be written to the audit is not shown. */
  read: (eventId: string, how: string) => Effect.flatMap(by(how), (by) => admin.record("read", by, { eventId }))
})
