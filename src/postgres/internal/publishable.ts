import type { AfterParked } from "../../OutboxStore.js"
import { instant, pending } from "./columns.js"

/** Conditions on the pending rows of `outbox` that a pump may publish at `now`. */
export const publishable = (outbox: string) => {
  // Keys behind a row that waits for its retry.
  const waitingKeys = (now: string) =>
    `SELECT ordering_key FROM ${outbox} WHERE ${pending} AND next_attempt_at > ${instant(now)}`
  const publishable = (row: string, now: string, afterParked: AfterParked) =>
    [
      `${row}.ordering_key NOT IN (${waitingKeys(now)})`,
      ...(afterParked === "wait"
        ? [
            `NOT EXISTS (SELECT FROM ${outbox} parked WHERE parked.lane = ${row}.lane AND parked.ordering_key = ${row}.ordering_key
               AND parked.published_at IS NULL AND parked.parked_at IS NOT NULL AND parked.id < ${row}.id)`
          ]
        : [])
    ].join(" AND ")
  return publishable
}
