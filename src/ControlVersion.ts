/**
 * The position of a control event in the feed, assigned by the sink.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

const isPositiveInteger = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) > 0

/**
 * A positive integer that a JavaScript number holds exactly (at most 2^53 - 1).
 *
 * @since 0.1.0
 * @category schemas
 */
export const ControlVersion = Schema.Number.pipe(
  Schema.filter((value) => isPositiveInteger(value), {
    message: () => "must be a positive integer of at most 2^53 - 1"
  }),
  Schema.brand("ControlVersion")
)

/**
 * A number that was checked to be a control version.
 *
 * @since 0.1.0
 * @category models
 */
export type ControlVersion = typeof ControlVersion.Type

/**
 * Tells whether a value is a valid control version.
 *
 * @since 0.1.0
 * @category guards
 */
export const is = (value: unknown): value is ControlVersion => isPositiveInteger(value)

/**
 * Constructs a `ControlVersion`. Throws if the number is invalid.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (value: number): ControlVersion => ControlVersion.make(value)
