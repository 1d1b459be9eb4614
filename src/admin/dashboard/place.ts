/** Keeps the view in the URL, so that it can be shared and the browser's Back works. */
import { useEffect, useState } from "preact/hooks"
import type { EventState, Overview } from "../../OutboxAdmin.js"
import type { Filter } from "./api.js"
import * as Words from "./words.js"

export interface Place {
  readonly filter: Filter
  /** Whether the URL names a state. If not, the page chooses the one that needs attention. */
  readonly stateChosen: boolean
  /** The event whose details are open. */
  readonly event: string | undefined
}

const read = (): Place => {
  const fields = new URLSearchParams(location.hash.slice(1))
  const text = (name: string): string | undefined => fields.get(name) ?? undefined
  const state = text("state")
  return {
    filter: {
      id: text("id"),
      type: text("type"),
      tenant: text("tenant"),
      key: text("key"),
      state: state !== undefined && state in Words.states ? (state as EventState) : undefined
    },
    stateChosen: state !== undefined,
    event: text("event")
  }
}

/** The state that needs attention first. */
export const firstState = (outbox: Overview | undefined): EventState | undefined =>
  (["parked", "waiting", "pending"] as const).find((state) => (outbox?.[state].value ?? 0) > 0)

const write = ({ event, filter }: Omit<Place, "stateChosen">): void => {
  const fields = Object.entries({ ...filter, state: filter.state ?? "all", event })
  location.hash = new URLSearchParams(
    fields.filter((entry): entry is [string, string] => entry[1] !== undefined)
  ).toString()
}

export const usePlace = (): [Place, (place: Omit<Place, "stateChosen">) => void] => {
  const [place, setPlace] = useState(read)
  useEffect(() => {
    const changed = (): void => setPlace(read())
    addEventListener("hashchange", changed)
    return () => removeEventListener("hashchange", changed)
  }, [])
  return [place, write]
}
