/** What the page shows is kept in the address, so that it can be shared and the browser's Back works. */
import { useEffect, useState } from "preact/hooks"
import type { EventState } from "../../OutboxAdmin.js"
import type { Filter } from "./api.js"
import * as Words from "./words.js"

export interface Place {
  readonly filter: Filter
  /** The event whose details are open. */
  readonly event: string | undefined
}

const read = (): Place => {
  const fields = new URLSearchParams(location.hash.slice(1))
  const text = (name: string): string | undefined => fields.get(name) ?? undefined
  const state = text("state") ?? "parked"
  return {
    filter: {
      id: text("id"),
      type: text("type"),
      tenant: text("tenant"),
      key: text("key"),
      state: state in Words.states ? (state as EventState) : undefined
    },
    event: text("event")
  }
}

const write = ({ event, filter }: Place): void => {
  const fields = Object.entries({ ...filter, state: filter.state ?? "all", event })
  location.hash = new URLSearchParams(
    fields.filter((entry): entry is [string, string] => entry[1] !== undefined)
  ).toString()
}

export const usePlace = (): [Place, (place: Place) => void] => {
  const [place, setPlace] = useState(read)
  useEffect(() => {
    const changed = (): void => setPlace(read())
    addEventListener("hashchange", changed)
    return () => removeEventListener("hashchange", changed)
  }, [])
  return [place, write]
}
