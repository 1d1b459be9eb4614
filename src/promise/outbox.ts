/**
 * The outbox for applications that do not use Effect.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as ControlEvent from "../ControlEvent.js"
import * as Outbox from "../Outbox.js"
import * as Names from "../postgres/internal/names.js"
import * as PlainAppend from "../postgres/internal/plainAppend.js"
import type { Transaction } from "./transactions.js"

/**
 * Appends events in transactions of the application. Promises are rejected with the errors of `Outbox.append`, which are
 * told apart by their `_tag`: `NotInTransaction`, `DuplicateEventId`, `InvalidEvent` and `OutboxError`. After an
 * `OutboxError` the transaction must be rolled back; after the others it can continue.
 *
 * @since 0.1.0
 * @category models
 */
export interface PromiseOutbox<Event extends ControlEvent.Input = ControlEvent.Input> {
  /**
   * Appends an event and returns its id. The event is published if and only if the transaction commits, after the events
   * of its key whose transactions committed before.
   */
  readonly append: (tx: Transaction, event: Event, options?: Outbox.AppendOptions) => Promise<string>

  /** Appends events in the order given, all or none, and returns their ids in that order. */
  readonly appendAll: (
    tx: Transaction,
    events: ReadonlyArray<Event>,
    options?: Outbox.AppendOptions
  ) => Promise<ReadonlyArray<string>>
}

const toPromise = async <A, E>(effect: Effect.Effect<A, E>): Promise<A> =>
  Exit.match(await Effect.runPromiseExit(effect), {
    onSuccess: (value) => value,
    // The error itself, not Effect's wrapping of it.
    onFailure: (cause) => {
      throw Cause.squash(cause)
    }
  })

/**
 * Makes an outbox. `schema` is the PostgreSQL schema that holds its table, default `public`. Migrate it first, with
 * `controlpublish migrate`. Name the application's own events to have others rejected by the compiler.
 *
 * @example
 * import { fromKysely, makeOutbox } from "controlpublish/promise"
 *
 * type Event = { type: "tenant.created"; tenant_id: string } | { type: "plan.changed"; tenant_id: string; plan: string }
 *
 * const outbox = makeOutbox<Event>()
 *
 * // In the callback of db.transaction().execute:
 * export const upgrade = async (trx: Parameters<typeof fromKysely>[0], tenant: string) => {
 *   await outbox.append(fromKysely(trx), { type: "plan.changed", tenant_id: tenant, plan: "gold" })
 * }
 *
 * @since 0.1.0
 * @category constructors
 */
export const makeOutbox = <Event extends ControlEvent.Input = ControlEvent.Input>({
  schema = "public"
}: { readonly schema?: string | undefined } = {}): PromiseOutbox<Event> => {
  const names = Names.make(schema)
  const of = (tx: Transaction) => Outbox.makeAppends(PlainAppend.make(names, tx.query))
  return {
    append: (tx, event, options) => toPromise(of(tx).append(event, options)),
    appendAll: (tx, events, options) => toPromise(of(tx).appendAll(events, options))
  }
}
