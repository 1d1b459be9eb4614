/**
 * Lanes divide the outbox among batches. An ordering key belongs to one lane forever, and one pump at a time works on a
 * lane.
 *
 * @since 0.1.0
 */

/**
 * The number of lanes. It is part of the table's definition (a generated column), so it is not a setting.
 *
 * @since 0.1.0
 * @category constants
 */
export const count = 64

/**
 * An integer from 0 to {@link count} - 1.
 *
 * @since 0.1.0
 * @category models
 */
export type Lane = number
