/**
 * Appends control events in the transaction that changes what they tell of.
 *
 * @since 1.0.0
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
 * @since 1.0.0
 * @category models
 */
export class Outbox extends Context.Tag("controlpublish/Outbox")<
  Outbox,
  {
    /**
     * Appends an event to the ambient transaction and answers its id. The event is in the feed exactly if that
     * transaction commits, after those events of its key whose transactions committed before.
     *
     * An interrupted append, as by a timeout around it, waits up to 2 seconds for its statement to end. Then nothing is
     * appended, and the transaction goes on. A statement that still waits by then, say for another transaction of the
     * key, is canceled, which fails the transaction: its commit is an `OutboxError` of `Outbox.withTransaction`, and a
     * defect of `sql.withTransaction`. To go on in any case, append in a nested transaction and put the timeout around
     * that.
     *
     * Fails with `NotInTransaction` also in a transaction of another database.
     */
    readonly append: (event: ControlEvent.Input, options?: AppendOptions) => Effect.Effect<EventId, AppendError>

    /**
     * Appends events in the order given, all or none, and answers their ids in that order. Much cheaper than one
     * `append` after another.
     */
    readonly appendAll: (
      events: ReadonlyArray<ControlEvent.Input>,
      options?: AppendOptions
    ) => Effect.Effect<ReadonlyArray<EventId>, AppendError>

    /**
     * Runs an effect in a transaction of the outbox's database, as `sql.withTransaction` does. Fails with an
     * `OutboxError` if the commit fails, also if a statement failed earlier and the server rolled back instead. Inside a
     * transaction it is a savepoint.
     */
    readonly withTransaction: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | OutboxError, R>

    /** The parked events with their errors, oldest first, at most `limit` of them (default 100). */
    readonly parked: (options?: { readonly limit?: number }) => Effect.Effect<ReadonlyArray<ParkedEvent>, OutboxError>

    /**
     * Makes parked events pending again, in their old place and with a fresh count of attempts. Answers the ids that
     * were parked.
     */
    readonly redrive: (eventIds: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<EventId>, OutboxError>
  }
>() {}

/**
 * @since 1.0.0
 * @category models
 */
export interface AppendOptions {
  /**
   * What orders the event, or how to tell it from the event. Default: the tenant's id, `""` for events of no tenant.
   */
  readonly orderingKey?: string | ((event: ControlEvent.ControlEvent) => string) | undefined
}

/**
 * @since 1.0.0
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

/** The first field that is longer than the outbox takes. What is short needs no look at its bytes. */
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
 * @since 1.0.0
 * @category constructors
 */
export const make: Effect.Effect<Outbox["Type"], never, OutboxStore> = Effect.gen(function* () {
  const store = yield* OutboxStore

  const appendAll = (events: ReadonlyArray<ControlEvent.Input>, options?: AppendOptions) =>
    Effect.gen(function* () {
      const traceparent = yield* currentTraceparent
      const rows: Array<NewRow> = []
      for (const event of yield* ControlEvent.makeAll(events)) {
        const row = toRow(event, options, traceparent)
        if (Either.isLeft(row)) return yield* row.left
        rows.push(row.right)
      }
      if (Arr.isNonEmptyReadonlyArray(rows)) yield* store.append(rows)
      return rows.map((row) => row.event.event_id)
    })

  return {
    append: Effect.fn("Outbox.append")((event, options) => Effect.map(appendAll([event], options), (ids) => ids[0]!)),
    appendAll: Effect.fn("Outbox.appendAll")(appendAll),
    withTransaction: store.withTransaction,
    parked: (options) => store.parked({ limit: options?.limit ?? 100 }),
    redrive: store.redrive
  }
})

/**
 * @since 1.0.0
 * @category layers
 */
export const layer: Layer.Layer<Outbox, never, OutboxStore> = Layer.effect(Outbox, make)
