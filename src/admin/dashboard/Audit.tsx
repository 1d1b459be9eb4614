/** The audit log: what operators did, who and why. */
import type { AuditEntry } from "../../OutboxAdmin.js"
import * as Api from "./api.js"
import { useLoaded } from "./live.js"
import * as Words from "./words.js"

const target = ({ affected, eventId, filter }: AuditEntry): string => {
  if (eventId !== undefined) return eventId
  const given = Object.entries(filter ?? {}).map(([name, value]) => `${name} ${JSON.stringify(value)}`)
  const which = filter === undefined ? "" : given.length === 0 ? "all parked" : given.join(", ")
  return [affected === undefined ? "" : Words.plural(affected, "event"), which].filter((part) => part !== "").join(": ")
}

export const Audit = (props: {
  readonly now: number
  /** Changes when what is shown may have. */
  readonly version: number
  readonly onOpen: (eventId: string) => void
}) => {
  const { now, onOpen, version } = props
  const { error, value } = useLoaded(Api.audit, [version])
  const entries = value?.entries ?? []
  return (
    <section class="panel" aria-labelledby="audit">
      <header>
        <h2 id="audit">Audit log</h2>
      </header>
      {error !== undefined && <p class="problem">Cannot read the audit log: {Api.explain(error)}</p>}
      {value !== undefined && entries.length === 0 && <p class="nothing">No entries.</p>}
      {entries.length > 0 && (
        <table aria-labelledby="audit">
          <thead>
            <tr>
              <th scope="col">When</th>
              <th scope="col">Action</th>
              <th scope="col">Target</th>
              <th scope="col">Reason</th>
              <th scope="col">Actor</th>
            </tr>
          </thead>
          <tbody>
            {entries.map((entry, index) => (
              <tr key={`${entry.at} ${index}`}>
                <td data-label="When" title={Words.time(entry.at)}>
                  {Words.ago(entry.at, now)}
                </td>
                <td data-label="Action">{entry.action}</td>
                <td data-label="Target">
                  {entry.eventId === undefined ? (
                    target(entry)
                  ) : (
                    <button type="button" class="link id" onClick={() => onOpen(entry.eventId!)}>
                      {entry.eventId}
                    </button>
                  )}
                </td>
                <td data-label="Reason" class="wrap">
                  {entry.reason}
                </td>
                <td data-label="Actor" class="dim">
                  {entry.actor}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  )
}
