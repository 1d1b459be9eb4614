/** What somebody who is woken up wants to know first: does it move, what is stuck, why, since when, and what to do. */
import type { Status } from "../AdminApi.js"
import type { Point } from "./live.js"
import * as Words from "./words.js"

export interface Verdict {
  readonly level: "good" | "attention" | "trouble"
  /** Stays the same while nothing changes that should be told. */
  readonly title: string
  readonly since: number | undefined
  /** Why, as the sink or the database says. */
  readonly reason: string | undefined
  readonly meaning: string
  /** What to do; absent: nothing. */
  readonly advice: string | undefined
}

/** What is pending and older than this is looked at. */
const old = 60_000

/** The backlog is compared with that of so long ago. */
const lookBack = 15_000

const backlogOf = ({ outbox }: Status): string =>
  outbox === undefined ? "What is in the outbox stays there" : `${Words.events(outbox.pending)} pending`

/** How fast the backlog grows, in events a second, as far as its counts are exact. */
const growth = (points: ReadonlyArray<Point>, status: Status): number | undefined => {
  if (status.outbox?.pending.exact !== true) return undefined
  const first = points.find(({ at, pending }) => pending !== null && status.at - at <= lookBack)
  return first?.pending == null || status.at - first.at < 5_000
    ? undefined
    : ((status.outbox.pending.value - first.pending) * 1000) / (status.at - first.at)
}

const movement = (status: Status, points: ReadonlyArray<Point>): string => {
  const pending = status.outbox?.pending.value ?? 0
  const speed = growth(points, status)
  if (pending === 0 || speed === undefined) return ""
  if (speed < -0.5) return ` The backlog shrinks and is gone in about ${Words.duration((pending / -speed) * 1000)}.`
  return speed > 0.5 ? ` The backlog grows by ${Words.rate(speed)} a second.` : ""
}

const troubled = (status: Status): Verdict | undefined => {
  const { health, pump } = status
  if (!health.database.ok) {
    return {
      level: "trouble",
      title: "The database does not answer",
      since: status.outboxAt,
      reason: health.database.message,
      meaning: `Nothing can be published. ${backlogOf(status)}, as far as was last seen, and nothing that was committed is lost.`,
      advice: "Bring the database back, or make room for its connections. The pump goes on by itself within seconds."
    }
  }
  if (!health.sink.ok) {
    return {
      level: "trouble",
      title: "The sink is unavailable",
      since: pump.since,
      reason: health.sink.message,
      meaning: `Nothing is published, and nothing is lost: ${backlogOf(status)}, and no event is charged with an attempt.`,
      advice: "Mend what the reason names. The pump tries again by itself, every 10 seconds at the latest."
    }
  }
  if (pump.state === "unavailable" || pump.state === "stopped") {
    return {
      level: "trouble",
      title: pump.state === "stopped" ? "The pump has stopped" : "The pump fails and backs off",
      since: pump.since,
      reason: pump.lastError?.message,
      meaning: `This process publishes nothing. ${backlogOf(status)}.`,
      advice:
        pump.state === "stopped"
          ? "Start the service again. Other processes' pumps go on."
          : "It tries again by itself. If the reason stays the same, look into the service's log."
    }
  }
  return undefined
}

const parkedAdvice = "Mend the cause that their errors name, then redrive them. They are listed below."

/** Whether something is pending that no pump seems to take. */
const isStuck = (status: Status): boolean => {
  const { oldestPendingAgeMillis: age = 0, outbox, rates } = status
  return (
    outbox !== undefined && age > old && (rates.published ?? 0) === 0 && outbox.pending.value > outbox.waiting.value
  )
}

export const verdict = (status: Status, points: ReadonlyArray<Point>): Verdict => {
  const trouble = troubled(status)
  if (trouble !== undefined) return trouble
  const { outbox, pump, rates } = status
  const parked = outbox?.parked.value ?? 0
  const waiting = outbox?.waiting.value ?? 0
  const calm = { since: undefined, reason: undefined, advice: undefined }
  if (pump.state === "inert") {
    return {
      ...calm,
      level: "attention",
      title: "Nothing is published: the sink is nop",
      meaning: "This process opens no database and publishes nothing.",
      advice: "Set FEED_SINK to file or jetstream to publish."
    }
  }
  if (pump.state === "paused") {
    return {
      ...calm,
      level: "attention",
      title: "Paused by hand",
      since: pump.since,
      meaning: `This process publishes nothing until it is resumed; other processes' pumps go on. ${backlogOf(status)}.`,
      advice: "Resume it once the reason for the pause is gone. The reason is in the audit."
    }
  }
  if (pump.state === "stopping") {
    return {
      ...calm,
      level: "attention",
      title: "Stopping",
      since: pump.since,
      meaning: "It finishes what is in flight."
    }
  }
  if (isStuck(status)) {
    return {
      ...calm,
      level: "trouble",
      title: "Events are pending, and nothing is published",
      since: outbox?.oldestPendingAt,
      meaning: `${backlogOf(status)}. ${waiting === 0 ? "" : `${Words.plural(waiting, "event")} of them wait for a retry, and their keys with them. `}This pump finds nothing that it may take.`,
      advice:
        "Look at the lanes below: an event at the head may wait for its retry, or another process may hold the lane."
    }
  }
  if (parked > 0) {
    return {
      ...calm,
      level: "attention",
      title: parked === 1 ? "It moves, but an event is parked" : "It moves, but events are parked",
      meaning: `${Words.events(outbox!.parked)} will not be published before somebody redrives ${parked === 1 ? "it" : "them"}.${movement(status, points)}`,
      advice: parkedAdvice
    }
  }
  if (waiting > 0) {
    return {
      ...calm,
      level: "attention",
      title: "It moves, but events wait for a retry",
      meaning: `The sink failed for ${Words.events(outbox!.waiting)} alone. They are tried again by themselves, every minute at the latest, and their keys wait with them.${movement(status, points)}`,
      advice: "See their errors below. Nothing has to be done if the cause passes."
    }
  }
  if ((outbox?.pending.value ?? 0) === 0) {
    return {
      ...calm,
      level: "good",
      title: "All is published",
      meaning: "Nothing is pending. What is appended is published at once."
    }
  }
  return {
    ...calm,
    level: "good",
    title: "It moves",
    meaning: `${Words.rate(rates.published)} events a second are published.${movement(status, points)}`
  }
}
