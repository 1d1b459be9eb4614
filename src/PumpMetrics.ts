/**
 * What the pumps of a process count. The names are stable.
 *
 * @since 1.0.0
 */
import * as Metric from "effect/Metric"

/**
 * Events published, duplicates included.
 *
 * @since 1.0.0
 * @category metrics
 */
export const published = Metric.counter("controlpublish_published_total", { incremental: true })

/**
 * Attempts that failed for one event alone.
 *
 * @since 1.0.0
 * @category metrics
 */
export const failed = Metric.counter("controlpublish_failed_total", { incremental: true })

/**
 * Events parked.
 *
 * @since 1.0.0
 * @category metrics
 */
export const parked = Metric.counter("controlpublish_parked_total", { incremental: true })

/**
 * Passes that failed as a whole: the sink or the database was unavailable, or something broke.
 *
 * @since 1.0.0
 * @category metrics
 */
export const failures = Metric.counter("controlpublish_pass_failures_total", { incremental: true })

/**
 * Defects of sinks.
 *
 * @since 1.0.0
 * @category metrics
 */
export const sinkDefects = Metric.counter("controlpublish_sink_defects_total", { incremental: true })
