/**
 * An outbox for the event types of one application, which rejects all others when it is compiled.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { EventId } from "./EventId.js"
import type { Declared, Group, InputOf } from "./EventType.js"
import * as Outbox from "./Outbox.js"
import type { OutboxStore } from "./OutboxStore.js"

/**
 * A declared type and the fields of an event of it.
 *
 * @since 0.1.0
 * @category models
 */
export type Publication<T extends Declared> = T extends Declared ? readonly [type: T, fields: InputOf<T>] : never

/**
 * Appends events of declared types, in the transaction of the caller. The pump publishes them once that is committed.
 *
 * @since 0.1.0
 * @category models
 */
export interface TypedOutbox<T extends Declared> extends Pick<
  Outbox.Outbox["Type"],
  "withTransaction" | "transaction"
> {
  /**
   * Appends an event to the ambient transaction and returns its id, as `Outbox.append` does and with its errors. Fails
   * with `InvalidEvent` if a field breaks its schema, too.
   */
  readonly publish: <Type extends T>(
    type: Type,
    fields: InputOf<Type>,
    options?: Outbox.AppendOptions
  ) => Effect.Effect<EventId, Outbox.AppendError>

  /** Appends events in the order given, all or none, and returns their ids in that order. */
  readonly publishAll: (
    events: ReadonlyArray<Publication<T>>,
    options?: Outbox.AppendOptions
  ) => Effect.Effect<ReadonlyArray<EventId>, Outbox.AppendError>
}

/**
 * The class that {@link Tag} makes: a tag, and the layer that provides it.
 *
 * @since 0.1.0
 * @category models
 */
export interface TagClass<Self, Id extends string, Types extends ReadonlyArray<Declared>> extends Context.TagClass<
  Self,
  Id,
  TypedOutbox<Types[number]>
> {
  /** The event types. */
  readonly group: Group<Types>
  /** Provides the outbox on a store: `Postgres.layer` or, in tests, `MemoryOutboxStore.layer`. It runs no pump. */
  readonly layer: Layer.Layer<Self, never, OutboxStore>
}

const make = <T extends Declared>(): Effect.Effect<TypedOutbox<T>, never, OutboxStore> =>
  Effect.map(Outbox.make, ({ append, appendAll, transaction, withTransaction }) => ({
    // A type's constructor takes its own fields: the signatures pair them.
    publish: (type, fields, options) => Effect.flatMap(type.make(fields as never), (event) => append(event, options)),
    publishAll: (events, options) =>
      Effect.flatMap(
        Effect.forEach(events, ([type, fields]) => type.make(fields)),
        (events) => appendAll(events, options)
      ),
    transaction,
    withTransaction
  }))

/**
 * Declares the outbox of an application. A program with several databases declares one for each.
 *
 * @example
 * import { SqlClient } from "@effect/sql"
 * import { EventType, TypedOutbox } from "controlpublish"
 * import { Effect, Schema } from "effect"
 *
 * const PlanChanged = EventType.make("plan.changed", { plan: Schema.Literal("free", "gold") })
 *
 * export class AppOutbox extends TypedOutbox.Tag<AppOutbox>()("app/Outbox", EventType.group(PlanChanged)) {}
 *
 * export const upgrade = Effect.fn("upgrade")(function* (tenant: string) {
 *   const sql = yield* SqlClient.SqlClient
 *   const outbox = yield* AppOutbox
 *   yield* outbox.transaction(
 *     sql`UPDATE tenants SET plan = 'gold' WHERE id = ${tenant}`,
 *     outbox.publish(PlanChanged, { tenant_id: tenant, plan: "gold" })
 *   )
 * })
 *
 * @since 0.1.0
 * @category constructors
 */
export const Tag =
  <Self>() =>
  <const Id extends string, const Types extends ReadonlyArray<Declared>>(
    id: Id,
    group: Group<Types>
  ): TagClass<Self, Id, Types> => {
    const tag = Context.Tag(id)<Self, TypedOutbox<Types[number]>>()
    return Object.assign(tag, { group, layer: Layer.effect(tag, make<Types[number]>()) })
  }
