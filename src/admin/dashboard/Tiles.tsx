/** Six figures of the outbox. */
import type { Status } from "../AdminApi.js"
import * as Words from "./words.js"

const Tile = (props: {
  readonly name: string
  readonly value: string
  readonly note: string
  readonly tone?: string
}) => (
  <div class={`tile ${props.tone ?? ""}`}>
    <dt>{props.name}</dt>
    <dd>
      <b>{props.value}</b>
      <span class="dim small">{props.note}</span>
    </dd>
  </div>
)

export const Tiles = ({ now, status }: { readonly status: Status; readonly now: number }) => {
  const { health, outbox, outboxAt, pump, rates } = status
  const asOf = health.database.ok || outboxAt === undefined ? undefined : `as of ${Words.ago(outboxAt, now)}`
  const unknown = { value: 0, exact: true }
  const known = (text: string): string => (outbox === undefined ? "–" : text)
  const oldest = outbox?.oldestPendingAt
  const { parked = unknown, pending = unknown, waiting = unknown } = outbox ?? {}
  return (
    <dl class="tiles">
      <Tile
        name="Pending"
        value={known(Words.count(pending))}
        note={asOf ?? (pending.exact ? "to be published" : "at least; not counted further")}
      />
      <Tile
        name="Oldest pending"
        value={known(oldest === undefined ? "none" : Words.duration(now - oldest))}
        note={asOf ?? (oldest === undefined ? "nothing is pending" : "age of the oldest event")}
        tone={oldest !== undefined && now - oldest > 60_000 ? "attention" : ""}
      />
      <Tile
        name="Published"
        value={`${Words.rate(rates.published)}/s`}
        note={
          pump.lastPublishedAt === undefined
            ? "none since the start"
            : `last ${Words.ago(pump.lastPublishedAt, now)}; ${Words.number(pump.published)} since the start`
        }
      />
      <Tile name="Appended" value={`${Words.rate(rates.appended)}/s`} note="by all applications" />
      <Tile
        name="Waiting"
        value={known(Words.count(waiting))}
        note={asOf ?? "for a retry"}
        tone={waiting.value > 0 ? "attention" : ""}
      />
      <Tile
        name="Parked"
        value={known(Words.count(parked))}
        note={asOf ?? (parked.value > 0 ? "until redriven or discarded" : "none")}
        tone={parked.value > 0 ? "attention" : ""}
      />
    </dl>
  )
}
