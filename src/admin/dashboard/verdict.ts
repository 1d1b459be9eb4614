/** The verdict: whether events are published, and if not, why, since when and what to do. */
import type { Status } from "../AdminApi.js"
import type { Point } from "./live.js"
import * as Words from "./words.js"

export interface Verdict {
  readonly level: "good" | "attention" | "trouble"
  /** Changes only if a screen reader should announce it. */
  readonly title: string
  readonly since: number | undefined
  /** The message of the sink or the database. */
  readonly reason: string | undefined
  readonly meaning: string
  /** What to do; absent: nothing. */
  readonly advice: string | undefined
}

/** Events pending for longer may be stuck, in milliseconds. */
const old = 60_000

/** Over how many milliseconds the growth of the backlog is taken. */
const lookBack = 15_000

const backlogOf = ({ outbox }: Status): string =>
  outbox === undefined ? "The outbox keeps its events" : `${Words.events(outbox.pending)} pending`

/** The growth of the backlog in events per second, if its counts are exact. */
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
  if (speed < -0.5)
    return ` The backlog shrinks and will be gone in about ${Words.duration((pending / -speed) * 1000)}.`
  return speed > 0.5 ? ` The backlog grows by ${Words.rate(speed)} a second.` : ""
}

const troubled = (status: Status): Verdict | undefined => {
  const { health, pump } = status
  if (!health.database.ok) {
    return {
      level: "trouble",
      title: "Database unreachable",
      since: health.database.since,
      reason: health.database.message,
      meaning: `The pump publishes nothing. ${backlogOf(status)} at the last reading. No committed event is lost.`,
      advice: "Restore the database or its free connections. The pump resumes by itself within seconds."
    }
  }
  if (!health.sink.ok) {
    return {
      level: "trouble",
      title: "Sink unreachable",
      since: health.sink.since,
      reason: health.sink.message,
      meaning: `The pump publishes nothing and loses nothing: ${backlogOf(status)}. No event is charged an attempt.`,
      advice: "Fix what the reason names. The pump retries by itself, at least every 10 seconds."
    }
  }
  if (pump.state === "unavailable" || pump.state === "stopped") {
    return {
      level: "trouble",
      title: pump.state === "stopped" ? "Stopped" : "The pump fails and backs off",
      since: pump.since,
      reason: pump.lastError?.message,
      meaning: `This process publishes nothing. ${backlogOf(status)}.`,
      advice:
        pump.state === "stopped"
          ? "Start the service again. Other processes' pumps continue."
          : "The pump retries by itself. If the reason stays the same, read the service's log."
    }
  }
  return undefined
}

const parkedAdvice = "Fix the cause that their errors name, then redrive them. They are listed below."

/** Whether pending events seem to be taken by no pump. */
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
      title: "Inert: the sink is nop",
      meaning: "This process opens no database and publishes nothing.",
      advice: "Set FEED_SINK to file or jetstream to publish."
    }
  }
  if (pump.state === "paused") {
    return {
      ...calm,
      level: "attention",
      title: "Paused",
      since: pump.since,
      meaning: `This process publishes nothing until you resume it. Other processes' pumps continue. ${backlogOf(status)}.`,
      advice: "Resume it once the reason for the pause is gone. The audit log has the reason."
    }
  }
  if (pump.state === "stopping") {
    return {
      ...calm,
      level: "attention",
      title: "Stopping",
      since: pump.since,
      meaning: "The pump finishes the events in flight."
    }
  }
  if (isStuck(status)) {
    return {
      ...calm,
      level: "trouble",
      title: "Stuck: events are pending and none is published",
      since: outbox?.oldestPendingAt,
      meaning: `${backlogOf(status)}. ${waiting === 0 ? "" : `${Words.plural(waiting, "event")} of them wait for a retry, their keys behind them. `}This pump finds nothing it may publish.`,
      advice:
        "Look at the lanes below: the head of a lane may wait for its retry, or another session may hold the lane."
    }
  }
  if (parked > 0) {
    return {
      ...calm,
      level: "attention",
      title: `Publishing; ${Words.events(outbox!.parked)} parked`,
      meaning: `Parked events are not published until they are redriven.${movement(status, points)}`,
      advice: parkedAdvice
    }
  }
  if (waiting > 0) {
    return {
      ...calm,
      level: "attention",
      title: `Publishing; ${Words.events(outbox!.waiting)} waiting for a retry`,
      meaning: `The sink failed for these events alone. The pump retries each at least every minute; its key waits behind it.${movement(status, points)}`,
      advice: "Read their errors below. If the cause passes, there is nothing to do."
    }
  }
  if ((outbox?.pending.value ?? 0) === 0) {
    return {
      ...calm,
      level: "good",
      title: "Idle: everything is published",
      meaning: "Nothing is pending. The pump publishes new events at once."
    }
  }
  return {
    ...calm,
    level: "good",
    title: "Publishing",
    meaning: `${Words.rate(rates.published)} events a second.${movement(status, points)}`
  }
}
