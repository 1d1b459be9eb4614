/**
 * The port through which a node reports.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type { Registration, Report } from "./NodeReport.js"

/**
 * The number that a receiver gave to a registration. It rises, so that reports of an earlier start of the node count for
 * nothing, however late they come.
 *
 * @since 0.1.0
 * @category models
 */
export type Ticket = number

/**
 * Takes the reports of nodes.
 *
 * A receiver promises:
 *
 * - A registration replaces the one before it. The node's position is unknown until it reports under the new one.
 * - Of the reports of a registration the one with the highest sequence counts. A late or doubled one changes nothing.
 * - Within a registration the position does not fall, unless the node's feed is another one.
 * - A node reports for itself alone. How it proves who it is, is the layer's; docs/arrived.md says it of each.
 *
 * @since 0.1.0
 * @category models
 */
export class NodeReports extends Context.Tag("controlpublish/NodeReports")<
  NodeReports,
  {
    /** Where reports go, for logs. */
    readonly name: string
    /** Whether reports go nowhere: no fiber, no connection. */
    readonly inert: boolean
    /** Says who the node is, and returns the ticket of its reports. */
    readonly register: (registration: Registration) => Effect.Effect<Ticket, ReportRefused | ReportsUnavailable>
    /** Says how far the node is. */
    readonly report: (
      node: string,
      ticket: Ticket,
      report: Report
    ) => Effect.Effect<void, Unregistered | ReportRefused | ReportsUnavailable>
  }
>() {}

/**
 * Nobody has registered with this ticket: another process has registered under the node's name since, or the node was
 * forgotten. It registers again.
 *
 * @since 0.1.0
 * @category errors
 */
export class Unregistered extends Schema.TaggedError<Unregistered>("controlpublish/Unregistered")("Unregistered", {
  node: Schema.String,
  reason: Schema.Literal("superseded", "forgotten")
}) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    return this.reason === "superseded"
      ? `Another process has registered as the node ${JSON.stringify(this.node)} since`
      : `The node ${JSON.stringify(this.node)} was forgotten`
  }
}

/**
 * The node may not report under this name, or what it says is invalid. It is refused until somebody fixes the cause.
 *
 * @since 0.1.0
 * @category errors
 */
export class ReportRefused extends Schema.TaggedError<ReportRefused>("controlpublish/ReportRefused")("ReportRefused", {
  node: Schema.String,
  message: Schema.String
}) {}

/**
 * Reports cannot be delivered, or nobody can be asked what nodes reported. A retry can help.
 *
 * @since 0.1.0
 * @category errors
 */
export class ReportsUnavailable extends Schema.TaggedError<ReportsUnavailable>("controlpublish/ReportsUnavailable")(
  "ReportsUnavailable",
  {
    message: Schema.String,
    cause: Schema.optionalWith(Schema.Defect, { exact: true })
  }
) {}

/**
 * Takes no reports: a node with it reports nothing.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerNop: Layer.Layer<NodeReports> = Layer.succeed(NodeReports, {
  name: "nop",
  inert: true,
  register: () => Effect.succeed(0),
  report: () => Effect.void
})
