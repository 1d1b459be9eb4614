import * as Either from "effect/Either"
import * as ControlEvent from "../ControlEvent.js"
import type { Erased, EventState } from "../OutboxViews.js"

/** What an event consists of that is valid and says nothing. */
const kept = ["event_id", "type", "tenant_id", "stack_id", "version", "base_version", "created_at"]

/** The event that takes the place of an erased one. */
export const marker = (row: { readonly eventId: string; readonly type: string; readonly payload: string }): string => {
  const parsed = Either.getOrUndefined(ControlEvent.parse(row.payload))
  const fields = typeof parsed === "object" && parsed !== null ? Object.entries(parsed) : []
  const named = { event_id: row.eventId, type: row.type }
  return JSON.stringify({
    ...named,
    ...Object.fromEntries(fields.filter(([name]) => kept.includes(name))),
    erased: true
  })
}

/** Why the payload of an event cannot be erased. */
export const refusal = (state: EventState): string =>
  `The event is ${state}: only one that is published can be erased. Discard this one first, then erase it`

/** Lists where a payload may still be after its erasure from the outbox. */
const remains = ({ artifactRef, controlVersion }: Omit<Erased, "remains">): ReadonlyArray<string> => [
  ...(controlVersion === undefined
    ? []
    : [
        `The feed has the payload as control version ${controlVersion} until its own retention removes it.`,
        "Nodes keep what they made of it."
      ]),
  ...(artifactRef === undefined ? [] : [`The artifact ${artifactRef} is as it was.`]),
  "Backups, standbys that lag and the server's WAL have it until they are replaced, and the table's file until the next vacuum."
]

export const erased = (what: Omit<Erased, "remains">): Erased => ({ ...what, remains: remains(what) })
