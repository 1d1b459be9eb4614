/** The node of this process: the applier's status, its lag and the events set aside. */
import { useEffect, useState } from "preact/hooks"
import type { ApplierStatus } from "../../fleet/ApplierStatus.js"
import type { Node as Answer } from "../NodeView.js"
import * as Api from "./api.js"
import { useLoaded } from "./live.js"
import { Bounds } from "./Service.js"
import type { Verdict } from "./verdict.js"
import * as Words from "./words.js"

/** Milliseconds between two readings. */
const refresh = 2_000

interface State {
  readonly name: string
  readonly ok: boolean
  readonly meaning: string
}

const states: Record<ApplierStatus["state"], State> = {
  inert: { name: "Inert", ok: true, meaning: "The source is nop: nothing is applied." },
  applying: { name: "Applying", ok: true, meaning: "The applier applies events from the feed." },
  idle: { name: "Idle", ok: true, meaning: "Every event of the feed is applied." },
  halted: {
    name: "Halted",
    ok: false,
    meaning: "An event cannot be applied. The events after it wait, and the applier tries again by itself."
  },
  unavailable: {
    name: "Unavailable",
    ok: false,
    meaning: "The applier cannot use the feed or the node's database. It tries again by itself."
  },
  paused: { name: "Paused", ok: true, meaning: "The applier was paused." },
  stopping: { name: "Stopping", ok: false, meaning: "The applier finishes the events in flight." },
  stopped: { name: "Stopped", ok: false, meaning: "The applier has stopped." }
}

const Applier = ({
  lag,
  now,
  status
}: {
  readonly status: ApplierStatus
  readonly lag: number
  readonly now: number
}) => {
  const { meaning, name, ok } = states[status.state]
  const { lastError } = status
  return (
    <>
      <ul>
        <li class={ok ? "good" : "trouble"}>
          <span class="sign" aria-hidden="true">
            {ok ? "✓" : "✕"}
          </span>
          <div>
            <b>{name}</b> <span class="dim">for {Words.duration(now - status.since)}</span>
            <div class="small wrap">{meaning}</div>
            {!ok && lastError !== undefined && (
              <div class="small wrap error">
                {lastError.version === undefined ? "" : `Version ${lastError.version}: `}
                {lastError.message}
              </div>
            )}
          </div>
        </li>
        <Bounds bounds={status.bounds ?? []} />
      </ul>
      <dl class="tiles">
        <Fact
          name="Position"
          value={Words.number(status.position)}
          note={`of ${Words.number(status.newest)} in the feed`}
        />
        <Fact
          name="Lag"
          value={Words.number(lag)}
          note={lag === 1 ? "version behind the feed" : "versions behind the feed"}
        />
        {status.boundUsed !== undefined && isBounded(status) && (
          <Fact
            name="Bound"
            value={`${Math.floor(status.boundUsed * 100)} %`}
            note="of what the feed keeps is unread; at 100 % the node cannot catch up"
          />
        )}
        <Fact name="Applied" value={Words.number(status.applied)} note="since the start" />
        <Fact name="Set aside" value={Words.number(status.setAside)} note="since the start" />
      </dl>
    </>
  )
}

const isBounded = ({ bounds = [] }: ApplierStatus): boolean => bounds.some(({ reach }) => reach !== undefined)

const Fact = ({ name, note, value }: { readonly name: string; readonly value: string; readonly note: string }) => (
  <div class="tile">
    <dt>{name}</dt>
    <dd>
      <b>{value}</b>
      <span class="dim small">{note}</span>
    </dd>
  </div>
)

const Asides = ({ asides, now }: { readonly asides: NonNullable<Answer["asides"]>; readonly now: number }) => (
  <table>
    <caption>Events set aside, newest first</caption>
    <thead>
      <tr>
        <th scope="col">When</th>
        <th scope="col">Event</th>
        <th scope="col" class="number">
          Version
        </th>
        <th scope="col">Reason</th>
      </tr>
    </thead>
    <tbody>
      {asides.map(({ at, eventId, reason, version }) => (
        <tr key={eventId}>
          <td data-label="When" title={Words.time(at)}>
            {Words.ago(at, now)}
          </td>
          <td data-label="Event" class="wrap">
            {eventId}
          </td>
          <td data-label="Version" class="number">
            {version}
          </td>
          <td data-label="Reason" class="error">
            {reason}
          </td>
        </tr>
      ))}
    </tbody>
  </table>
)

/** The last reading of the node, and the error of a newer one. */
export interface Found {
  readonly node: Answer | undefined
  readonly error: unknown
}

/** Reads the node repeatedly if the process runs an applier. */
export const useNode = (connected: boolean): Found => {
  const [tick, setTick] = useState(0)
  const [last, setLast] = useState<Answer>()
  const { error, value } = useLoaded(Api.node, [tick, connected])
  useEffect(() => {
    if (value !== undefined) setLast(value)
  }, [value])
  const isNode = last?.applier !== undefined
  useEffect(() => {
    if (!connected || !isNode) return
    const timer = setInterval(() => {
      if (!document.hidden) setTick((tick) => tick + 1)
    }, refresh)
    return () => clearInterval(timer)
  }, [connected, isNode])
  return { node: last, error }
}

/** The headline of a process that has a node and no outbox. */
export const nodeVerdict = ({ lastError, since, state }: ApplierStatus): Verdict => {
  const { meaning, name, ok } = states[state]
  return {
    level: ok ? "good" : "trouble",
    title: `Node: ${name.toLowerCase()}`,
    since,
    meaning,
    reason: ok ? undefined : lastError?.message,
    advice: state === "halted" ? "Fix what the reason names. The applier goes on by itself." : undefined
  }
}

/** Renders nothing if the process runs no applier. */
export const Node = ({ error, node, now }: Found & { readonly now: number }) => {
  if (node?.applier === undefined) return null
  const { applier, asides, databaseError, lag } = node
  return (
    <section class="panel parts" aria-labelledby="node">
      <header>
        <h2 id="node">Node</h2>
        <span class="dim">source {applier.source}</span>
      </header>
      {error !== undefined && (
        <p class="problem" role="alert">
          Cannot read the node: {Api.explain(error)}
        </p>
      )}
      <Applier status={applier} lag={lag ?? 0} now={now} />
      {databaseError !== undefined && <p class="problem">Cannot read what was set aside: {databaseError}</p>}
      {asides !== undefined && asides.length > 0 && <Asides asides={asides} now={now} />}
      {asides !== undefined && asides.length === 0 && <p class="nothing">No event is set aside.</p>}
    </section>
  )
}
