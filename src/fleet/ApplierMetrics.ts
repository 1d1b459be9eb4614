/**
 * What the appliers of a process count. The names are stable.
 *
 * @since 0.1.0
 */
import * as Metric from "effect/Metric"

/**
 * Events applied.
 *
 * @since 0.1.0
 * @category metrics
 */
export const applied = Metric.counter("controlpublish_applied_total", {
  description: "Events applied",
  incremental: true
})

/**
 * Deliveries of events that were applied before.
 *
 * @since 0.1.0
 * @category metrics
 */
export const skipped = Metric.counter("controlpublish_skipped_total", {
  description: "Deliveries of events that were applied before",
  incremental: true
})

/**
 * Events set aside.
 *
 * @since 0.1.0
 * @category metrics
 */
export const setAside = Metric.counter("controlpublish_set_aside_total", {
  description: "Events set aside because they can never be applied",
  incremental: true
})

/**
 * Passes that failed: an event could not be applied, or the feed or the database was unavailable.
 *
 * @since 0.1.0
 * @category metrics
 */
export const failures = Metric.counter("controlpublish_apply_failures_total", {
  description:
    "Passes that ended in an error: an event could not be applied, or the feed or the database was unavailable",
  incremental: true
})

/**
 * The control version of the last event that was applied.
 *
 * @since 0.1.0
 * @category metrics
 */
export const position = Metric.gauge("controlpublish_applied_position", {
  description: "The control version of the last event that was applied"
})

/**
 * How much of what the feed keeps is unread by this node.
 *
 * @since 0.1.0
 * @category metrics
 */
export const boundUsed = Metric.gauge("controlpublish_applied_bound_used_ratio", {
  description:
    "How much of what the feed keeps is unread by this node, from 0 to 1: at 1 events are removed before it reads them"
})
