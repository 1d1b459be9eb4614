/**
 * What a node does with the events of each type.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { InvalidEvent, type ControlEvent } from "../ControlEvent.js"
import type { ControlVersion } from "../ControlVersion.js"

/**
 * What a handler gets besides the declared fields.
 *
 * @since 0.1.0
 * @category models
 */
export interface Delivered {
  /** The event as it is in the feed, valid. */
  readonly event: ControlEvent & { readonly control_version: ControlVersion }
  /** The verified bytes of the artifact. `undefined` if the event has none. */
  readonly artifact: Uint8Array | undefined
}

/**
 * A handler declares that this event can never be applied here, so a retry cannot help. The applier halts, or sets the
 * event aside (`cannotApply` of `Applier.Options`).
 *
 * @since 0.1.0
 * @category errors
 */
export class CannotApply extends Schema.TaggedError<CannotApply>("controlpublish/CannotApply")("CannotApply", {
  reason: Schema.String
}) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    return this.reason
  }
}

/**
 * A handler failed. Its transaction was rolled back, and the event is retried.
 *
 * @since 0.1.0
 * @category errors
 */
export class HandlerFailed extends Schema.TaggedError<HandlerFailed>("controlpublish/HandlerFailed")("HandlerFailed", {
  type: Schema.String,
  message: Schema.String,
  cause: Schema.Defect
}) {}

/**
 * The node has no handler for the type of an event: it is older than the producer.
 *
 * @since 0.1.0
 * @category errors
 */
export class UnknownType extends Schema.TaggedError<UnknownType>("controlpublish/UnknownType")("UnknownType", {
  type: Schema.String
}) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    return `This node has no handler for ${JSON.stringify(this.type)}: upgrade the node, or skip such types (otherwise)`
  }
}

/**
 * Why an event could not be handled.
 *
 * @since 0.1.0
 * @category errors
 */
export type HandleError = InvalidEvent | CannotApply | HandlerFailed | UnknownType

/**
 * The handlers of a node.
 *
 * @since 0.1.0
 * @category models
 */
export interface Handlers<R> {
  /** Runs the handler of the event's type. */
  readonly handle: (delivered: Delivered) => Effect.Effect<void, HandleError, R>
  /**
   * Handles several events of one transaction at once, in the order of the feed. Without it each event goes to `handle`.
   */
  readonly handleAll?: ((delivered: ReadonlyArray<Delivered>) => Effect.Effect<void, HandleError, R>) | undefined
}

/**
 * An event type that was declared with `EventType.make`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Declared {
  readonly type: string
  readonly decode: (event: ControlEvent) => Effect.Effect<unknown, InvalidEvent>
}

type FieldsOf<T extends Declared> = Effect.Effect.Success<ReturnType<T["decode"]>>

/**
 * A handler for each type. A missing one does not compile.
 *
 * @since 0.1.0
 * @category models
 */
export type Table<Types extends ReadonlyArray<Declared>> = {
  readonly [T in Types[number] as T["type"]]: (
    fields: FieldsOf<T>,
    delivered: Delivered
  ) => Effect.Effect<unknown, unknown, unknown>
}

/** The services that a function's effect needs. */
type Needs<F> = F extends (...args: never) => Effect.Effect<unknown, unknown, infer R> ? R : never

const failed = (type: string) => (cause: unknown) =>
  new HandlerFailed({
    type,
    message: `The handler of ${type} failed: ${cause instanceof Error && cause.message !== "" ? cause.message : String(cause)}`,
    cause
  })

const isOwn = (error: unknown): error is HandleError =>
  [InvalidEvent, CannotApply, HandlerFailed, UnknownType].some((own) => error instanceof own)

const own = <R>(type: string, handled: Effect.Effect<unknown, unknown, R>): Effect.Effect<void, HandleError, R> =>
  handled.pipe(
    // A defect of a handler is a failure like any other: it is rolled back and retried.
    Effect.catchAllDefect((defect) => failed(type)(defect)),
    Effect.mapError((error): HandleError => (isOwn(error) ? error : failed(type)(error))),
    Effect.asVoid
  )

/**
 * Makes handlers for declared types. They run in the transaction that marks the event as applied.
 *
 * @example
 * import { SqlClient } from "@effect/sql"
 * import { EventType } from "controlpublish"
 * import { Handlers } from "controlpublish/fleet"
 * import { Effect, Schema } from "effect"
 *
 * const PlanChanged = EventType.make("plan.changed", { tenant_id: Schema.String, plan: Schema.String })
 *
 * export const handlers = Handlers.make([PlanChanged], {
 *   "plan.changed": ({ plan, tenant_id }) =>
 *     Effect.flatMap(
 *       SqlClient.SqlClient,
 *       (sql) => sql`UPDATE tenants SET plan = ${plan} WHERE id = ${tenant_id}`
 *     )
 * })
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = <const Types extends ReadonlyArray<Declared>, H extends Table<Types>, R2 = never>(
  types: Types,
  handlers: H & { readonly [Type in Exclude<keyof H, Types[number]["type"]>]: never },
  options: {
    /** What happens to events of other types: `halt` until the node knows them (the default), `skip`, or a handler. */
    readonly otherwise?: "halt" | "skip" | ((delivered: Delivered) => Effect.Effect<unknown, unknown, R2>)
  } = {}
): Handlers<Needs<H[keyof H]> | R2> => {
  type R = Needs<H[keyof H]>
  const declared = new Map(types.map((type) => [type.type, type]))
  const table = handlers as unknown as Readonly<
    Record<string, (fields: unknown, delivered: Delivered) => Effect.Effect<unknown, unknown, R>>
  >
  const { otherwise = "halt" } = options
  const handleOther = (delivered: Delivered): Effect.Effect<unknown, unknown, R2> => {
    if (otherwise === "skip") return Effect.void
    return otherwise === "halt" ? new UnknownType({ type: delivered.event.type }) : otherwise(delivered)
  }
  return {
    handle: (delivered) => {
      const { event } = delivered
      const type = declared.get(event.type)
      const handled: Effect.Effect<unknown, unknown, R | R2> =
        type === undefined
          ? handleOther(delivered)
          : Effect.flatMap(type.decode(event), (fields) => table[event.type]!(fields, delivered))
      return own(event.type, handled)
    }
  }
}

/**
 * An event of a batch.
 *
 * @since 0.1.0
 * @category models
 */
export interface BatchItem<Fields> {
  /** The declared fields. */
  readonly fields: Fields
  readonly delivered: Delivered
}

/**
 * A handler of batches for each type. A missing one does not compile.
 *
 * @since 0.1.0
 * @category models
 */
export type BatchTable<Types extends ReadonlyArray<Declared>> = {
  readonly [T in Types[number] as T["type"]]: (
    batch: ReadonlyArray<BatchItem<FieldsOf<T>>>
  ) => Effect.Effect<unknown, unknown, unknown>
}

/**
 * Makes handlers that take several events at once, so that one statement can apply 100 of them.
 *
 * A batch holds consecutive events of one type, in the order of the feed, none of which was applied yet. At most
 * `batchSize` of `Applier.Options` come at a time. They run in the transaction that marks the events. If a batch fails,
 * its transaction is rolled back, and each event comes again in a batch of its own, so that only the event that fails
 * halts the node. One row may be in a batch twice: an `INSERT … ON CONFLICT DO UPDATE` fails on that, so keep the last.
 *
 * @example
 * import { SqlClient } from "@effect/sql"
 * import { EventType } from "controlpublish"
 * import { Handlers } from "controlpublish/fleet"
 * import { Effect, Schema } from "effect"
 *
 * const PlanChanged = EventType.make("plan.changed", { tenant_id: Schema.String, plan: Schema.String })
 *
 * export const handlers = Handlers.makeBatch([PlanChanged], {
 *   "plan.changed": (batch) =>
 *     Effect.flatMap(SqlClient.SqlClient, (sql) => {
 *       const plans = new Map(batch.map(({ fields }) => [fields.tenant_id, fields.plan]))
 *       return sql`UPDATE tenants SET plan = changed.plan
 *         FROM unnest(${Array.from(plans.keys())}::text[], ${Array.from(plans.values())}::text[]) AS changed (id, plan)
 *         WHERE tenants.id = changed.id`
 *     })
 * })
 *
 * @since 0.1.0
 * @category constructors
 */
export const makeBatch = <const Types extends ReadonlyArray<Declared>, H extends BatchTable<Types>, R2 = never>(
  types: Types,
  handlers: H & { readonly [Type in Exclude<keyof H, Types[number]["type"]>]: never },
  options: {
    /** What happens to events of other types: `halt` until the node knows them (the default), `skip`, or a handler. */
    readonly otherwise?:
      "halt" | "skip" | ((batch: ReadonlyArray<Delivered>) => Effect.Effect<unknown, unknown, R2>) | undefined
  } = {}
): Handlers<Needs<H[keyof H]> | R2> => {
  type R = Needs<H[keyof H]>
  const declared = new Map(types.map((type) => [type.type, type]))
  const table = handlers as unknown as Readonly<
    Record<string, (batch: ReadonlyArray<BatchItem<unknown>>) => Effect.Effect<unknown, unknown, R>>
  >
  const { otherwise = "halt" } = options
  const handleOthers = (batch: ReadonlyArray<Delivered>, type: string): Effect.Effect<unknown, unknown, R2> => {
    if (otherwise === "skip") return Effect.void
    return otherwise === "halt" ? new UnknownType({ type }) : otherwise(batch)
  }
  const handleRun = (batch: ReadonlyArray<Delivered>): Effect.Effect<void, HandleError, R | R2> => {
    const { type: name } = batch[0]!.event
    const type = declared.get(name)
    if (type === undefined) return own(name, handleOthers(batch, name))
    const items = Effect.forEach(batch, (delivered) =>
      Effect.map(type.decode(delivered.event), (fields) => ({ fields, delivered }))
    )
    return own(
      name,
      Effect.flatMap(items, (items) => table[name]!(items))
    )
  }
  const handleAll = (batch: ReadonlyArray<Delivered>) =>
    Effect.forEach(runs(batch, declared), handleRun, { discard: true })
  return { handle: (delivered) => handleRun([delivered]), handleAll }
}

/** Splits events where the type changes. Undeclared types count as one. */
const runs = (batch: ReadonlyArray<Delivered>, declared: ReadonlyMap<string, unknown>) => {
  const runs: Array<Array<Delivered>> = []
  let last: string | undefined
  for (const delivered of batch) {
    const type = declared.has(delivered.event.type) ? delivered.event.type : ""
    if (type === last) runs[runs.length - 1]!.push(delivered)
    else runs.push([delivered])
    last = type
  }
  return runs
}
