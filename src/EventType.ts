/**
 * Event types that an application declares with a Schema each, so appending and applying are typed.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import * as ControlEvent from "./ControlEvent.js"

/**
 * The contract's fields that accompany the declared ones.
 *
 * @since 0.1.0
 * @category models
 */
export interface Envelope {
  readonly event_id?: string
  readonly tenant_id?: string
  readonly stack_id?: string
  readonly version?: number
  readonly base_version?: number
  readonly artifact_ref?: string
  readonly checksum?: string
  readonly created_at?: string
}

/**
 * Fields whose schemas need no services.
 *
 * @since 0.1.0
 * @category models
 */
export type Fields = { readonly [name: string]: Schema.Schema.AnyNoContext }

/**
 * A declared event type: its name and the schema of its fields.
 *
 * @since 0.1.0
 * @category models
 */
export interface EventType<Type extends string, F extends Fields> {
  readonly type: Type
  /** The declared fields. */
  readonly schema: Schema.Struct<F>
  /**
   * Makes a complete, valid event: encodes the declared fields and adds a missing `event_id` and `created_at`. Fails
   * with an `InvalidEvent` that names the field.
   */
  readonly make: (
    input: Schema.Struct.Type<F> & Omit<Envelope, keyof F>
  ) => Effect.Effect<ControlEvent.ControlEvent, ControlEvent.InvalidEvent>
  /** Tells whether the event is of this type. Does not check its fields. */
  readonly is: (event: ControlEvent.ControlEvent) => boolean
  /**
   * Decodes the declared fields of an event. Fails with an `InvalidEvent` if the event is of another type or a field
   * does not decode.
   */
  readonly decode: (event: ControlEvent.ControlEvent) => Effect.Effect<Schema.Struct.Type<F>, ControlEvent.InvalidEvent>
}

/**
 * Any declared event type, of which only the name and the constructor matter.
 *
 * @since 0.1.0
 * @category models
 */
export interface Declared {
  readonly type: string
  readonly make: (input: never) => Effect.Effect<ControlEvent.ControlEvent, ControlEvent.InvalidEvent>
}

/**
 * What the constructor of a declared type takes.
 *
 * @since 0.1.0
 * @category models
 */
export type InputOf<T extends Declared> = Parameters<T["make"]>[0]

/**
 * The event types of an application.
 *
 * @since 0.1.0
 * @category models
 */
export interface Group<Types extends ReadonlyArray<Declared>> {
  readonly types: Types
}

/**
 * Groups the event types of an application, for `TypedOutbox.Tag` and `Handlers.make`. Throws if two have the same name.
 *
 * @example
 * import { EventType } from "controlpublish"
 * import { Schema } from "effect"
 *
 * const PlanChanged = EventType.make("plan.changed", { plan: Schema.Literal("free", "gold") })
 * const SeatsChanged = EventType.make("seats.changed", { seats: Schema.Int })
 *
 * export const AppEvents = EventType.group(PlanChanged, SeatsChanged)
 *
 * @since 0.1.0
 * @category constructors
 */
export const group = <const Types extends ReadonlyArray<Declared>>(...types: Types): Group<Types> => {
  const names = types.map(({ type }) => type)
  const twice = names.find((name, index) => names.indexOf(name) !== index)
  if (twice !== undefined) throw new Error(`EventType.group has two event types with the name ${JSON.stringify(twice)}`)
  return { types }
}

/**
 * Declares an event type.
 *
 * @example
 * import { EventType } from "controlpublish"
 * import { Schema } from "effect"
 *
 * const PlanChanged = EventType.make("plan.changed", { plan: Schema.Literal("free", "gold"), seats: Schema.Int })
 *
 * const event = PlanChanged.make({ tenant_id: "t1", plan: "gold", seats: 3 })
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = <const Type extends string, F extends Fields>(type: Type, fields: F): EventType<Type, F> => {
  const schema = Schema.Struct(fields)
  // A struct over type parameters is opaque to the compiler: its type is the one that `F` says.
  const declared: Schema.Schema<unknown, object> = Schema.make(schema.ast)
  const encode = ParseResult.encodeUnknown(declared)
  const decode = ParseResult.decodeUnknown(declared as Schema.Schema<Schema.Struct.Type<F>, object>)
  const is = (event: ControlEvent.ControlEvent) => event.type === type
  const invalid = (issue: ParseResult.ParseIssue, eventId: string | undefined) => {
    const [first] = ParseResult.ArrayFormatter.formatIssueSync(issue)
    return new ControlEvent.InvalidEvent({
      ...(eventId === undefined ? {} : { eventId }),
      field: first?.path.join(".") ?? "",
      reason: first?._tag === "Missing" ? `is required for ${type}` : `breaks the schema of ${type}`
    })
  }
  return {
    type,
    schema,
    is,
    make: (input) =>
      encode(input).pipe(
        Effect.mapError((issue) => invalid(issue, (input as Envelope).event_id)),
        Effect.flatMap((encoded) => ControlEvent.make({ ...input, ...encoded, type }))
      ),
    decode: (event) =>
      is(event)
        ? Effect.mapError(decode(event), (issue) => invalid(issue, event.event_id))
        : Effect.fail(
            new ControlEvent.InvalidEvent({ eventId: event.event_id, field: "type", reason: `must be ${type}` })
          )
  }
}
