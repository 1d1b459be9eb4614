/** What people are told of nodes that have not applied something. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Laggard, Rollout, What, Why } from "../FleetViews.js"
import { ReportsUnavailable } from "../NodeReports.js"
import type { SourceError } from "../Source.js"

/** Laggards that a message names. */
const named = 5

export const toUnavailable = (cause: SourceError): Effect.Effect<never, ReportsUnavailable> =>
  Effect.fail(new ReportsUnavailable({ message: `The feed cannot be asked for its identity: ${cause.message}`, cause }))

const words: Record<Why, string> = {
  unregistered: "is not registered",
  starting: "has registered and not said where it is",
  otherFeed: "reads another feed",
  setAside: "has set the event aside",
  unclear: "has set aside too many events to say whether this is one",
  silent: "is not heard",
  halted: "is halted",
  unavailable: "cannot reach its feed or its database",
  paused: "is paused",
  stopped: "has stopped",
  behind: "is on its way"
}

const seconds = (millis: number): string => Duration.format(Duration.seconds(Math.max(0, Math.floor(millis / 1000))))

/** One laggard in words: what holds it, and where it is. */
export const describe = ({ known, why }: Laggard, at: number): string => {
  if (known === undefined) return words[why]
  const place = known.position === undefined ? "" : ` at ${known.position}`
  if (why === "silent") return `not heard for ${seconds(at - known.heardAt)}, then${place || " at no position"}`
  if (why === "otherFeed") return `${words[why]}: ${known.feed}`
  const trouble = known.trouble === undefined ? "" : `: ${known.trouble.message}`
  return `${words[why]}${place}${trouble}`
}

const nounOf = (what: What): string => (typeof what === "number" ? `control version ${what}` : `the event ${what}`)

/** Why it has not arrived, in one line. */
export const notApplied = (
  what: What,
  rollout: Rollout | undefined,
  trouble: string | undefined,
  timeout: Duration.Duration
): string => {
  const within = `within ${Duration.format(timeout)}`
  if (rollout === undefined) {
    return `Whether ${nounOf(what)} was applied could not be asked ${within}${trouble === undefined ? "" : `: ${trouble}`}`
  }
  const { event, progress } = rollout
  if (progress === undefined) {
    const error = event?.error === undefined ? "" : `: ${event.error}`
    return `${nounOf(what)} was not published ${within}: it is ${event?.state ?? "pending"}${error}`
  }
  const { at, chosen, feed, laggards } = progress
  const late = trouble === undefined ? "" : `; the last look failed: ${trouble}`
  if (chosen === 0)
    return `No node was chosen, so none has applied ${nounOf(what)}: none is registered that matches${late}`
  if (feed === undefined && progress.others.some(({ why }) => why === "otherFeed")) {
    return `The nodes read several feeds, and it is not known which one ${nounOf(what)} belongs to: name the feed${late}`
  }
  const shown = laggards.slice(0, named).map((laggard) => `${laggard.node} ${describe(laggard, at)}`)
  const more = chosen - progress.applied - shown.length
  return (
    `${progress.applied} of ${chosen} nodes have applied ${nounOf(what)} ${within}, and ${rollout.needed} have to: ` +
    `${shown.join("; ")}${more > 0 ? `; and ${more} more` : ""}${late}`
  )
}
