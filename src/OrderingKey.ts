/**
 * What orders control events. The events of one ordering key are published in the order in which their transactions
 * committed. Events of different keys have no order.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { isStorable } from "./internal/text.js"

/**
 * Any text, the empty one included.
 *
 * @since 0.1.0
 * @category schemas
 */
export const OrderingKey = Schema.String.pipe(
  Schema.filter(isStorable, { message: () => "must be text without NUL characters and lone surrogates" }),
  Schema.brand("OrderingKey")
)

/**
 * Text that was checked to be an ordering key.
 *
 * @since 0.1.0
 * @category models
 */
export type OrderingKey = typeof OrderingKey.Type

/**
 * Constructs an `OrderingKey`. Throws if no store can keep the text.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (value: string): OrderingKey => OrderingKey.make(value)

/**
 * The default key: the tenant's id, or `""` for events without a tenant.
 *
 * @since 0.1.0
 * @category constructors
 */
export const ofTenant = (tenantId: string | undefined): OrderingKey => (tenantId ?? "") as OrderingKey
