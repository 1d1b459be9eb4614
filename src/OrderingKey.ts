/**
 * What orders control events: the events of one ordering key are published in the order in which their transactions
 * committed. Events of different keys have no order among themselves.
 *
 * @since 1.0.0
 */
import * as Schema from "effect/Schema"
import { isStorable } from "./internal/text.js"

/**
 * Any text, the empty one included.
 *
 * @since 1.0.0
 * @category schemas
 */
export const OrderingKey = Schema.String.pipe(
  Schema.filter(isStorable, { message: () => "must be text without NUL characters and lone surrogates" }),
  Schema.brand("OrderingKey")
)

/**
 * @since 1.0.0
 * @category models
 */
export type OrderingKey = typeof OrderingKey.Type

/**
 * Constructs an `OrderingKey`, throwing on text that no store can keep.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (value: string): OrderingKey => OrderingKey.make(value)

/**
 * The key where the producer gives none: the tenant's id, and `""` for events of no tenant.
 *
 * @since 1.0.0
 * @category constructors
 */
export const ofTenant = (tenantId: string | undefined): OrderingKey => (tenantId ?? "") as OrderingKey
