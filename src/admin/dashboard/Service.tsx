/** The parts of the service and whether each works. */
import type { Check, Status } from "../AdminApi.js"
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
      </ul>
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
