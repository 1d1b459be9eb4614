/**
 * Appends control events in the transaction of the change that they announce.
 *
 * @since 0.1.0
 */
import * as Arr from "effect/Array"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as ControlEvent from "./ControlEvent.js"
import type { EventId } from "./EventId.js"
import * as Bounds from "./internal/bounds.js"
import * as Traceparent from "./internal/traceparent.js"
import * as OrderingKey from "./OrderingKey.js"
import {
  OutboxStore,
  type DuplicateEventId,
  type NewRow,
  type NotInTransaction,
  type OutboxError,
  type ParkedEvent
} from "./OutboxStore.js"

/**
 * Appends control events to the outbox, in the transaction of the caller.
 *
 * @example
 * import { SqlClient } from "@effect/sql"
 * import { Outbox } from "controlpublish"
 * import { Effect } from "effect"
 *
 * export const createTenant = Effect.fn("createTenant")(function* (id: string) {
 *   const sql = yield* SqlClient.SqlClient
 *   const outbox = yield* Outbox.Outbox
 *   const change = sql`INSERT INTO tenants (id) VALUES (${id})`
 *   const event = outbox.append({ type: "tenant.created", tenant_id: id })
 *   return yield* sql.withTransaction(Effect.zipRight(change, event))
 * })
 *
 * @since 0.1.0
 * @category models
 */
export class Outbox extends Context.Tag("controlpublish/Outbox")<
  Outbox,
  {
    /**
     * Appends an event to the ambient transaction and returns its id. The event is published if and only if that
     * transaction commits, after the events of its key whose transactions committed before.
     *
     * An interrupted append, for example by a timeout, waits up to 2 seconds for its statement to end. Then nothing is
     * appended and the transaction can continue. A statement that is still running is canceled, which fails the
     * transaction: `Outbox.withTransaction` fails with an `OutboxError`, `sql.withTransaction` with a defect. To
     * continue in any case, append in a nested transaction and put the timeout around that.
     *
     * Fails with `NotInTransaction` outside a transaction and in a transaction of another database, with
     * `DuplicateEventId` if the outbox has an event with this id, with `InvalidEvent` if the event breaks the contract,
     * and with `OutboxError` if the database fails.
     */
    readonly append: (event: ControlEvent.Input, options?: AppendOptions) => Effect.Effect<EventId, AppendError>

    /**
     * Appends events in the order given, all or none, and returns their ids in that order. Much cheaper than repeated
     * `append`.
     */
    readonly appendAll: (
      events: ReadonlyArray<ControlEvent.Input>,
      options?: AppendOptions
    ) => Effect.Effect<ReadonlyArray<EventId>, AppendError>

    /**
     * Runs an effect in a transaction of the outbox's database, as `sql.withTransaction` does. Inside a transaction it
     * is a savepoint. Fails with an `OutboxError` if the commit fails, even if the server rolled back because an
     * earlier statement failed.
     */
    readonly withTransaction: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | OutboxError, R>

    /** Runs a change and what it appends in one transaction. See {@link Transaction}. */
    readonly transaction: Transaction

    /** Returns the parked events with their errors, oldest first, at most `limit` (default 100). */
    readonly parked: (options?: { readonly limit?: number }) => Effect.Effect<ReadonlyArray<ParkedEvent>, OutboxError>

    /**
     * Makes parked events pending again, in their old place and with a fresh count of attempts. Returns the ids that
     * were parked.
     */
    readonly redrive: (eventIds: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<EventId>, OutboxError>
  }
>() {}

/**
 * Runs a change, then what appends its events, in one transaction of the outbox's database, and returns the change's
 * result. Both are committed or neither. Inside a transaction it is a savepoint. Fails with an `OutboxError` if the
 * transaction fails, or the one around it is of another database.
 *
 * @example
 * import { SqlClient } from "@effect/sql"
 * import { Outbox } from "controlpublish"
 * import { Effect } from "effect"
 *
 * export const createTenant = Effect.fn("createTenant")(function* (name: string) {
 *   const sql = yield* SqlClient.SqlClient
 *   const outbox = yield* Outbox.Outbox
 *   const insert = sql<{ readonly id: string }>`INSERT INTO tenants (name) VALUES (${name}) RETURNING id`
 *   const [tenant] = yield* outbox.transaction(insert, ([tenant]) =>
 *     outbox.append({ type: "tenant.created", tenant_id: tenant?.id ?? "", name })
 *   )
 *   return tenant
 * })
 *
 * @since 0.1.0
 * @category models
 */
export type Transaction = <A, E, R, E2, R2>(
  change: Effect.Effect<A, E, R>,
  append: Effect.Effect<unknown, E2, R2> | ((result: A) => Effect.Effect<unknown, E2, R2>)
) => Effect.Effect<A, E | E2 | OutboxError, R | R2>

/**
 * The options of an append.
 *
 * @since 0.1.0
 * @category models
 */
export interface AppendOptions {
  /**
   * The ordering key, or a function that derives it from the event. Default: the tenant's id, or `""` for events
   * without a tenant.
   */
  readonly orderingKey?: string | ((event: ControlEvent.ControlEvent) => string) | undefined
}

/**
 * Why an append failed. It appended nothing.
 *
 * @since 0.1.0
 * @category errors
 */
export type AppendError = NotInTransaction | DuplicateEventId | ControlEvent.InvalidEvent | OutboxError

const isOrderingKey = Schema.is(OrderingKey.OrderingKey)

const keyOf = (
  event: ControlEvent.ControlEvent,
  options: AppendOptions | undefined
): Either.Either<OrderingKey.OrderingKey, ControlEvent.InvalidEvent> => {
  const given = options?.orderingKey
  if (given === undefined) return Either.right(OrderingKey.ofTenant(event.tenant_id))
  const key = typeof given === "string" ? given : given(event)
  return isOrderingKey(key)
    ? Either.right(key)
    : Either.left(
        new ControlEvent.InvalidEvent({
          eventId: event.event_id,
          field: "orderingKey",
          reason: "must be text without NUL characters and lone surrogates"
        })
      )
}

const currentTraceparent: Effect.Effect<string | undefined> = Effect.map(
  Effect.option(Effect.currentSpan),
  Option.match({
    onNone: () => undefined,
    onSome: Traceparent.encode
  })
)

const toRow = (
  event: ControlEvent.ControlEvent,
  options: AppendOptions | undefined,
  traceparent: string | undefined
): Either.Either<NewRow, ControlEvent.InvalidEvent> =>
  Either.flatMap(ControlEvent.encode(event), (payload) =>
    Either.flatMap(keyOf(event, options), (orderingKey) => {
      const field = tooLong(event, orderingKey)
      return field === undefined
        ? Either.right({ event, payload, orderingKey, traceparent })
        : Either.left(
            new ControlEvent.InvalidEvent({
              eventId: event.event_id,
              field: field === "ordering_key" ? "orderingKey" : field,
              reason: `must have at most ${bytesOf[field]} bytes`
            })
          )
    })
  )

const bytesOf = {
  type: Bounds.textBytes.event_type,
  tenant_id: Bounds.textBytes.tenant_id,
  stack_id: Bounds.textBytes.stack_id,
  artifact_ref: Bounds.textBytes.artifact_ref,
  ordering_key: Bounds.textBytes.ordering_key
} as const

/** Finds the first field that is longer than the outbox takes. Short fields need no count of bytes. */
const tooLong = (event: ControlEvent.ControlEvent, orderingKey: string): keyof typeof bytesOf | undefined => {
  for (const field of Object.keys(bytesOf) as Array<keyof typeof bytesOf>) {
    const value = field === "ordering_key" ? orderingKey : event[field]
    if (value !== undefined && value.length > bytesOf[field] / 3 && Buffer.byteLength(value) > bytesOf[field]) {
      return field
    }
  }
  return undefined
}

/**
 * Makes the appends of an outbox on a way to write rows, for outboxes that only append. They validate and complete the
 * events. {@link make} uses it with the store's `append`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const makeAppends = (write: OutboxStore["Type"]["append"]): Pick<Outbox["Type"], "append" | "appendAll"> => {
  const appendAll = (events: ReadonlyArray<ControlEvent.Input>, options?: AppendOptions) =>
    Effect.gen(function* () {
      const traceparent = yield* currentTraceparent
      const rows: Array<NewRow> = []
      for (const event of yield* ControlEvent.makeAll(events)) {
        const row = toRow(event, options, traceparent)
        if (Either.isLeft(row)) return yield* row.left
        rows.push(row.right)
      }
      if (Arr.isNonEmptyReadonlyArray(rows)) yield* write(rows)
      return rows.map((row) => row.event.event_id)
    })

  return {
    append: Effect.fn("Outbox.append")((event, options) => Effect.map(appendAll([event], options), (ids) => ids[0]!)),
    appendAll: Effect.fn("Outbox.appendAll")(appendAll)
  }
}

const makeTransaction =
  (withTransaction: OutboxStore["Type"]["withTransaction"]): Transaction =>
  (change, append) =>
    withTransaction(Effect.tap(change, (result) => (typeof append === "function" ? append(result) : append)))

/**
 * Makes an outbox on a store.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: Effect.Effect<Outbox["Type"], never, OutboxStore> = Effect.map(OutboxStore, (store) => ({
  ...makeAppends(store.append),
  withTransaction: store.withTransaction,
  transaction: makeTransaction(store.withTransaction),
  parked: (options) => store.parked({ limit: options?.limit ?? 100 }),
  redrive: store.redrive
}))

/**
 * Provides an outbox on a store: `Postgres.layer` or, in tests, `MemoryOutboxStore.layer`. It runs no pump.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<Outbox, never, OutboxStore> = Layer.effect(Outbox, make)
