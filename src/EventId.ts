/**
 * The identity of a control event: assigned by the producer, kept through every retry.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import * as Uuid from "uuid"
import { isStorable } from "./internal/text.js"

/**
 * The longest event id in UTF-8 bytes. It must fit into an entry of a PostgreSQL index, which takes 2,704.
 *
 * @since 0.1.0
 * @category constants
 */
export const maxBytes = 1024

const isValid = (value: string): boolean =>
  value.length > 0 && isStorable(value) && (value.length <= maxBytes / 3 || Buffer.byteLength(value) <= maxBytes)

/**
 * Any non-empty text of at most {@link maxBytes} bytes.
 *
 * @since 0.1.0
 * @category schemas
 */
export const EventId = Schema.String.pipe(
  Schema.filter(isValid, {
    message: () => `must be non-empty text of at most ${maxBytes} bytes, without NUL characters and lone surrogates`
  }),
  Schema.brand("EventId")
)

/**
 * Text that was checked to be an event id.
 *
 * @since 0.1.0
 * @category models
 */
export type EventId = typeof EventId.Type

/**
 * Tells whether text is a valid id.
 *
 * @since 0.1.0
 * @category guards
 */
export const isEventId = (value: string): value is EventId => isValid(value)

/**
 * Constructs an `EventId`. Throws if the text is invalid. Use it for ids known to the program.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (value: string): EventId => EventId.make(value)

/**
 * Generates a UUIDv7. Its time comes from `Clock` and its randomness from `Random`, so tests are deterministic.
 *
 * @since 0.1.0
 * @category constructors
 */
export const generate: Effect.Effect<EventId> = Effect.gen(function* () {
  const msecs = yield* Clock.currentTimeMillis
  const random = new Uint8Array(16)
  const view = new DataView(random.buffer)
  // The time replaces the first six bytes.
  for (const offset of [4, 8, 12]) view.setUint32(offset, yield* Random.nextIntBetween(0, 0x1_0000_0000))
  return Uuid.v7({ msecs, random }) as EventId
})
