/** The table of events, with filter, pages and actions. */
import { useEffect, useState } from "preact/hooks"
import type { Count, EventState, EventSummary } from "../../OutboxAdmin.js"
import * as Api from "./api.js"
import { useLoaded } from "./live.js"
import * as Words from "./words.js"

/** How often the first page is read again, in milliseconds. */
const refresh = 5_000

const tabs: ReadonlyArray<EventState | undefined> = ["parked", "waiting", "pending", "published", undefined]

const fields = [
  { name: "id", label: "Event id" },
  { name: "type", label: "Type" },
  { name: "tenant", label: "Tenant" },
  { name: "key", label: "Ordering key", hint: '"" matches events of no tenant' }
] as const

/** How to type the empty ordering key: an empty field means no filter. */
const emptyKey = '""'

const narrows = (filter: Api.Filter): boolean => fields.some(({ name }) => filter[name] !== undefined)

export const describeFilter = (filter: Api.Filter): string =>
  fields
    .filter(({ name }) => filter[name] !== undefined)
    .map(({ label, name }) => `${label.toLowerCase()} ${filter[name] === "" ? emptyKey : filter[name]!}`)
    .join(", ")

const FilterForm = (props: { readonly filter: Api.Filter; readonly onFilter: (filter: Api.Filter) => void }) => {
  const { filter, onFilter } = props
  return (
    <form
      class="filter"
      role="search"
      aria-label="Filter events"
      key={describeFilter(filter)}
      onSubmit={(event) => {
        event.preventDefault()
        const given = new FormData(event.currentTarget)
        const text = (name: string): string | undefined => {
          const field = given.get(name)
          const value = typeof field === "string" ? field.trim() : ""
          return value === "" ? undefined : value === emptyKey ? "" : value
        }
        onFilter({
          state: filter.state,
          id: text("id"),
          type: text("type"),
          tenant: text("tenant"),
          key: text("key")
        })
      }}
    >
      {fields.map(({ label, name, ...rest }) => (
        <label key={name}>
          {label}
          <input
            name={name}
            autocomplete="off"
            spellcheck={false}
            defaultValue={filter[name] === "" ? emptyKey : (filter[name] ?? "")}
            title={"hint" in rest ? rest.hint : "Exact match"}
          />
        </label>
      ))}
      <div class="buttons">
        <button type="submit">Filter</button>
        {narrows(filter) && (
          <button type="button" class="quiet" onClick={() => onFilter({ state: filter.state })}>
            Clear
          </button>
        )}
      </div>
    </form>
  )
}

const timing = (event: EventSummary, now: number): string => {
  if (event.publishedAt !== undefined) {
    return `published ${Words.ago(event.publishedAt, now)} as version ${event.controlVersion ?? "?"}`
  }
  if (event.parkedAt !== undefined) return `parked ${Words.ago(event.parkedAt, now)}`
  return event.nextAttemptAt === undefined ? "not published yet" : `retry ${Words.relative(event.nextAttemptAt, now)}`
}

export const StateBadge = ({ state }: { readonly state: EventState }) => (
  <span class={`badge ${state}`} title={Words.states[state].meaning}>
    <span aria-hidden="true">{Words.states[state].sign}</span> {Words.states[state].name}
  </span>
)

const Row = (props: {
  readonly event: EventSummary
  readonly now: number
  readonly onOpen: () => void
  readonly onRedrive: () => void
}) => {
  const { event, now, onOpen, onRedrive } = props
  return (
    <tr>
      <td data-label="State">
        <StateBadge state={event.state} />
        <div class="dim small">{timing(event, now)}</div>
      </td>
      <th scope="row" data-label="Event">
        <button type="button" class="link id" onClick={onOpen}>
          {event.eventId}
        </button>
        <div class="small plain">{event.type}</div>
      </th>
      <td data-label="Key">
        <span class="wrap">{Words.key(event.orderingKey)}</span>
        <div class="dim small">lane {event.lane}</div>
      </td>
      <td data-label="Age" class="number" title={Words.time(event.createdAt)}>
        {Words.duration(now - event.createdAt)}
      </td>
      <td data-label="Attempts" class="number">
        {event.attemptCount}
      </td>
      <td data-label="Last error" class="error">
        {event.lastError ?? <span class="dim">–</span>}
      </td>
      <td class="actions">
        {event.state === "parked" && (
          <button type="button" onClick={onRedrive} aria-label={`Redrive ${event.eventId}`}>
            Redrive
          </button>
        )}
      </td>
    </tr>
  )
}

const emptyWords = (filter: Api.Filter): string => {
  if (narrows(filter)) return "No event matches this filter."
  if (filter.state === undefined) return "The outbox is empty."
  return `No event is ${Words.states[filter.state].name.toLowerCase()}.`
}

export const Events = (props: {
  readonly filter: Api.Filter
  /** The counts of each state, up to their limit. */
  readonly counts: { readonly [S in EventState]?: typeof Count.Type } | undefined
  readonly now: number
  /** Changes when what is shown may have. */
  readonly version: number
  readonly connected: boolean
  readonly onFilter: (filter: Api.Filter) => void
  readonly onOpen: (eventId: string) => void
  readonly onRedrive: (event: EventSummary) => void
  readonly onRedriveAll: () => void
}) => {
  const { connected, counts, filter, now, onFilter, onOpen, onRedrive, onRedriveAll, version } = props
  const wanted = JSON.stringify(filter)
  // The cursors that lead to this page, for this filter.
  const [path, setPath] = useState<{ readonly of: string; readonly cursors: ReadonlyArray<string> }>({
    of: wanted,
    cursors: []
  })
  const cursors = path.of === wanted ? path.cursors : []
  const cursor = cursors[cursors.length - 1]
  const [tick, setTick] = useState(0)
  useEffect(() => {
    if (cursor !== undefined || !connected) return
    const timer = setInterval(() => {
      if (!document.hidden) setTick((tick) => tick + 1)
    }, refresh)
    return () => clearInterval(timer)
  }, [cursor, connected])
  const { error, loading, value } = useLoaded(
    (signal) => Api.events(filter, cursor, signal),
    [wanted, cursor, tick, version, connected]
  )
  const rows = value?.events ?? []
  const next = value?.next

  return (
    <section class="panel" id="events" aria-labelledby="events-title">
      <header>
        <h2 id="events-title">Events</h2>
        <div class="tabs" role="group" aria-label="State">
          {tabs.map((state) => (
            <button
              key={state ?? "all"}
              type="button"
              aria-pressed={filter.state === state}
              onClick={() => onFilter({ ...filter, state })}
            >
              {state === undefined ? "All" : Words.states[state].name}
              {state !== undefined && counts?.[state] !== undefined && (
                <span class="count"> {Words.shortCount(counts[state])}</span>
              )}
            </button>
          ))}
        </div>
        {filter.state === "parked" && rows.length > 0 && (
          <button type="button" class="primary" onClick={onRedriveAll}>
            {narrows(filter)
              ? "Redrive filtered…"
              : counts?.parked === undefined
                ? "Redrive all…"
                : `Redrive all ${Words.count(counts.parked)}…`}
          </button>
        )}
      </header>
      <FilterForm filter={filter} onFilter={onFilter} />
      {error !== undefined && (
        <p class="problem" role="alert">
          Cannot read the events: {Api.explain(error)}
        </p>
      )}
      {rows.length > 0 && (
        <table aria-labelledby="events-title" aria-busy={loading}>
          <thead>
            <tr>
              <th scope="col">State</th>
              <th scope="col">Event</th>
              <th scope="col">Key</th>
              <th scope="col" class="number">
                Age
              </th>
              <th scope="col" class="number">
                Attempts
              </th>
              <th scope="col">Last error</th>
              <th scope="col">
                <span class="sr">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {rows.map((event) => (
              <Row
                key={event.eventId}
                event={event}
                now={now}
                onOpen={() => onOpen(event.eventId)}
                onRedrive={() => onRedrive(event)}
              />
            ))}
          </tbody>
        </table>
      )}
      {value !== undefined && rows.length === 0 && (
        <p class="nothing">
          {next === undefined
            ? cursor === undefined
              ? emptyWords(filter)
              : "No older events."
            : "No match so far. Older rows have not been searched yet."}
        </p>
      )}
      <footer class="pages">
        <span class="dim small">Newest first{cursors.length > 0 ? `, page ${cursors.length + 1}` : ""}</span>
        {cursor !== undefined && (
          <button type="button" onClick={() => setPath({ of: wanted, cursors: cursors.slice(0, -1) })}>
            Newer
          </button>
        )}
        {next !== undefined && (
          <button type="button" onClick={() => setPath({ of: wanted, cursors: [...cursors, next] })}>
            {rows.length === 0 ? "Search older" : "Older"}
          </button>
        )}
      </footer>
    </section>
  )
}
