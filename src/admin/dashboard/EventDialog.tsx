/** Shows one event in full. Everything is rendered as text. */
import { useState } from "preact/hooks"
import type { EventDetail } from "../../OutboxAdmin.js"
import * as Api from "./api.js"
import { Dialog } from "./Dialog.js"
import { StateBadge } from "./Events.js"
import { useLoaded } from "./live.js"
import * as Words from "./words.js"
import { indented } from "../../internal/indented.js"

/** The service bounds the text: with more, the page would freeze. */
const Payload = ({ event }: { readonly event: EventDetail }) => {
  if (event.payloadOmitted !== undefined) {
    return <p class="dim">Not shown: it has {Words.plural(event.payloadOmitted, "byte")}.</p>
  }
  return (
    <>
      {event.payloadCut === true && (
        <p class="dim">Only the beginning of {Words.plural(event.payloadBytes, "byte")} is shown.</p>
      )}
      <pre tabIndex={0} aria-labelledby="payload">
        {event.payloadCut === true ? event.payload : indented(event.payload)}
      </pre>
    </>
  )
}

/** Fetches the file, because a link would not carry the token. */
const save = async (eventId: string): Promise<void> => {
  const { blob, name } = await Api.payload(eventId)
  const url = URL.createObjectURL(blob)
  const link = document.createElement("a")
  link.href = url
  link.download = name
  link.click()
  URL.revokeObjectURL(url)
}

const PayloadButtons = ({ event }: { readonly event: EventDetail }) => {
  const [problem, setProblem] = useState("")
  if (event.payloadOmitted !== undefined) return null
  const download = (): void => {
    setProblem("")
    save(event.eventId).catch((error: unknown) => setProblem(Api.explain(error)))
  }
  return (
    <>
      {problem !== "" && (
        <span class="problem" role="alert">
          {problem}
        </span>
      )}
      {/* Only where the page came over a secure way, or from this machine. */}
      {isSecureContext && event.payloadCut !== true && (
        <button type="button" onClick={() => void navigator.clipboard.writeText(event.payload)}>
          Copy raw text
        </button>
      )}
      <button type="button" onClick={download}>
        Download raw text
      </button>
    </>
  )
}

/** The trace id in a traceparent: version, trace id, span id, flags. */
const traceIdOf = (traceparent: string): string => traceparent.split("-")[1] ?? traceparent

const facts = (event: EventDetail, now: number): ReadonlyArray<readonly [string, string]> => {
  const at = (instant: number | undefined): string | undefined =>
    instant === undefined ? undefined : `${Words.time(instant)} · ${Words.relative(instant, now)}`
  const all: ReadonlyArray<readonly [string, string | undefined]> = [
    ["Type", event.type],
    ["Tenant", event.tenantId],
    ["Stack", event.stackId],
    ["Ordering key", `${Words.key(event.orderingKey)} · lane ${event.lane}`],
    ["Created", at(event.createdAt)],
    ["Published", at(event.publishedAt)],
    ["Control version", event.controlVersion === undefined ? undefined : String(event.controlVersion)],
    ["Parked", at(event.parkedAt)],
    ["Attempts", String(event.attemptCount)],
    ["Last attempt", at(event.lastAttemptAt)],
    ["Retry at", at(event.nextAttemptAt)],
    ["Last error", event.lastError],
    ["Too long, cut", event.cut?.join(", ")],
    ["Trace id", event.traceparent === undefined ? undefined : traceIdOf(event.traceparent)]
  ]
  return all.filter((fact): fact is readonly [string, string] => fact[1] !== undefined)
}

const Attempts = ({ attempts, now }: { readonly attempts: EventDetail["failedAttempts"]; readonly now: number }) => (
  <table>
    <caption>Failed attempts, newest first</caption>
    <thead>
      <tr>
        <th scope="col">When</th>
        <th scope="col">Error</th>
        <th scope="col">Next</th>
      </tr>
    </thead>
    <tbody>
      {attempts.map(({ at, error, nextAttemptAt }) => (
        <tr key={at}>
          <td data-label="When" title={Words.time(at)}>
            {Words.ago(at, now)}
          </td>
          <td data-label="Error" class="error">
            {error}
          </td>
          <td data-label="Next">
            {nextAttemptAt === undefined ? "parked" : `retry after ${Words.duration(nextAttemptAt - at)}`}
          </td>
        </tr>
      ))}
    </tbody>
  </table>
)

const Detail = ({ event, now }: { readonly event: EventDetail; readonly now: number }) => (
  <>
    <p>
      <StateBadge state={event.state} /> {Words.states[event.state].meaning}
    </p>
    <dl>
      {facts(event, now).map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd class={name === "Last error" ? "error" : ""}>{value}</dd>
        </div>
      ))}
    </dl>
    {event.failedAttempts.length > 0 && <Attempts attempts={event.failedAttempts} now={now} />}
    <section aria-labelledby="payload">
      <header class="row">
        <h3 id="payload">Payload</h3>
        <PayloadButtons event={event} />
      </header>
      <Payload event={event} />
    </section>
  </>
)

export const EventDialog = (props: {
  readonly eventId: string
  readonly now: number
  /** Changes when what is shown may have. */
  readonly version: number
  readonly onClose: () => void
  readonly onKey: (orderingKey: string) => void
  readonly onMend: (what: Api.Mending, event: EventDetail) => void
  readonly onErase: (event: EventDetail) => void
}) => {
  const { eventId, now, onClose, onErase, onKey, onMend, version } = props
  const { error, value: event } = useLoaded((signal) => Api.event(eventId, signal), [eventId, version])
  const unpublished = event !== undefined && event.state !== "published"
  return (
    <Dialog title={`Event ${eventId}`} onClose={onClose} wide>
      <div class="stack">
        {error !== undefined && (
          <p class="problem" role="alert">
            Cannot read the event: {Api.explain(error)}
          </p>
        )}
        {event === undefined && error === undefined && <p class="dim">Loading…</p>}
        {event !== undefined && <Detail event={event} now={now} />}
        {event !== undefined && (
          <footer>
            {event.cut?.includes("orderingKey") !== true && (
              <button type="button" class="quiet" onClick={() => onKey(event.orderingKey)}>
                Events of this key
              </button>
            )}
            {event.state === "published" && event.payloadOmitted === undefined && (
              <button type="button" class="danger" onClick={() => onErase(event)}>
                Erase payload…
              </button>
            )}
            {unpublished && (
              <button type="button" class="danger" onClick={() => onMend("discard", event)}>
                Discard…
              </button>
            )}
            {unpublished && event.state !== "parked" && (
              <button type="button" onClick={() => onMend("park", event)}>
                Park…
              </button>
            )}
            {event.state === "parked" && (
              <button type="button" class="primary" onClick={() => onMend("redrive", event)}>
                Redrive…
              </button>
            )}
          </footer>
        )}
      </div>
    </Dialog>
  )
}
