/** Logs what operators do through the API, and writes reads and refusals to the audit log. */
import * as Effect from "effect/Effect"
import type { AuditAction, By, OutboxAdmin } from "../../OutboxAdmin.js"
import { Actor, Conflict } from "../AdminApi.js"
import * as RefusedWrites from "./refusedWrites.js"

/** The client and the reason that it gives. */
export const by = (reason: string): Effect.Effect<By, never, Actor> => Effect.map(Actor, (actor) => ({ actor, reason }))

/** Logs an operator's action, successful or not. */
const logged = (action: AuditAction, by: By, target: Readonly<Record<string, unknown>>, failure?: string) =>
  Effect.annotateLogs(
    failure === undefined
      ? Effect.logInfo(`Operator action: ${action}`)
      : Effect.logWarning(`Operator action failed: ${action}: ${failure}`),
    { ...by, ...target }
  )

const refused = (
  admin: OutboxAdmin["Type"],
  action: AuditAction,
  { actor, reason }: By,
  why: string,
  eventId?: string
) => RefusedWrites.record(admin, { actor, reason: `${action}: ${why} (${reason})` }, { eventId })

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

  /** Fails if the audit log cannot be written: the payload is then not shown. */
  read: (eventId: string, how: string) => Effect.flatMap(by(how), (by) => admin.record("read", by, { eventId }))
})
