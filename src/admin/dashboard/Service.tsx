/** The parts of the service and whether each works. */
import type { AttendedPump } from "../../PumpStatus.js"
import type { Check, Health, Status } from "../AdminApi.js"
import * as Words from "./words.js"

const Part = ({ check, name, now }: { readonly name: string; readonly check: Check; readonly now: number }) => (
  <li class={check.ok ? "good" : "trouble"}>
    <span class="sign" aria-hidden="true">
      {check.ok ? "✓" : "✕"}
    </span>
    <div>
      <b>{name}</b>{" "}
      <span class="dim">
        {check.ok ? "healthy" : "failing"}
        {check.since !== undefined && ` for ${Words.duration(now - check.since)}`}
      </span>
      <div class="small wrap">{check.message}</div>
    </div>
  </li>
)

/** What the settings of the feed limit. Nothing is wrong, and somebody has to know. */
export const Bounds = ({ bounds }: Pick<Health, "bounds">) =>
  bounds.length === 0 ? null : (
    <li class="attention">
      <span class="sign" aria-hidden="true">
        !
      </span>
      <div>
        <b>Feed</b> <span class="dim">bounded</span>
        {bounds.map(({ message }) => (
          <div class="small wrap" key={message}>
            {message}
          </div>
        ))}
      </div>
    </li>
  )

/** A pump of this outbox, in whatever process. */
const Running = ({ now, pump }: { readonly pump: AttendedPump; readonly now: number }) => {
  const { host, lost, pid, rate, sink, state, trouble } = pump
  const ok = !lost && trouble === undefined
  return (
    <li class={ok ? "good" : "trouble"}>
      <span class="sign" aria-hidden="true">
        {ok ? "✓" : "✕"}
      </span>
      <div>
        <b>
          {host}, process {pid}
        </b>{" "}
        <span class="dim">
          {lost ? "lost" : state} for {Words.duration(now - (lost ? pump.seenAt : pump.since))}
        </span>
        <div class="small wrap">
          sink {sink}, {Words.number(pump.published)} published
          {rate !== undefined && `, ${rate.toFixed(1)} events/s`}
          {pump.lastPublishedAt !== undefined && `, last ${Words.ago(pump.lastPublishedAt, now)}`}
          {trouble !== undefined && `; ${trouble.of}: ${trouble.message}`}
        </div>
      </div>
    </li>
  )
}

export const Service = ({
  now,
  onPrune,
  status
}: {
  readonly status: Status
  readonly now: number
  readonly onPrune: () => void
}) => {
  const { health, pump, retention, startedAt, version } = status
  return (
    <section class="panel parts" aria-labelledby="service">
      <header>
        <h2 id="service">Service</h2>
        <button type="button" onClick={onPrune}>
          Run retention…
        </button>
      </header>
      <ul>
        <Part name="Pump" check={health.pump} now={now} />
        <Part name="Sink" check={health.sink} now={now} />
        <Part name="Database" check={health.database} now={now} />
        <Bounds bounds={health.bounds} />
      </ul>
      {status.pumps !== undefined && status.pumps.length > 0 && (
        <>
          <h3>Pumps of this outbox</h3>
          <ul>
            {status.pumps.map((pump) => (
              <Running key={pump.id} pump={pump} now={now} />
            ))}
          </ul>
        </>
      )}
      <p class="dim small">
        controlpublish {version}, uptime {Words.duration(now - startedAt)}. Retention: {retention}. Since start:{" "}
        {Words.plural(pump.batches, "batch", "batches")}, {Words.plural(pump.failed, "failed attempt")},{" "}
        {Words.number(pump.parked)} parked, {Words.plural(pump.failures, "failed pass", "failed passes")}.
        {pump.lastError !== undefined && (
          <>
            {" "}
            Last failed pass {Words.ago(pump.lastError.at, now)}: {pump.lastError.message}
          </>
        )}
      </p>
    </section>
  )
}
