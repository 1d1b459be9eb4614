/** The page as a whole. */
import { useEffect, useMemo, useState } from "preact/hooks"
import type { EventDetail, EventSummary } from "../../OutboxAdmin.js"
import type { Check, Status } from "../AdminApi.js"
import * as Api from "./api.js"
import { Audit } from "./Audit.js"
import { Chart } from "./Chart.js"
import { ConfirmDialog, TokenDialog, type Deed } from "./Dialog.js"
import { EventDialog } from "./EventDialog.js"
import { describeFilter, Events } from "./Events.js"
import { Lanes } from "./Lanes.js"
import { useLive, useNow, type Live } from "./live.js"
import { usePlace } from "./place.js"
import { themes, useTheme, type Theme } from "./theme.js"
import { verdict, type Verdict } from "./verdict.js"
import * as Words from "./words.js"

const signs: Record<Verdict["level"], { readonly sign: string; readonly name: string }> = {
  good: { sign: "✓", name: "Good" },
  attention: { sign: "!", name: "Attention" },
  trouble: { sign: "✕", name: "Trouble" }
}

const Headline = ({ now, told }: { readonly told: Verdict; readonly now: number }) => (
  <section class={`headline ${told.level}`} aria-label="In short">
    <span class="sign" aria-hidden="true">
      {signs[told.level].sign}
    </span>
    <div>
      <h1>
        <span class="sr">{signs[told.level].name}: </span>
        {told.title}
        {told.since !== undefined && <span class="since"> for {Words.duration(now - told.since)}</span>}
      </h1>
      {told.reason !== undefined && <p class="reason">{told.reason}</p>}
      <p>{told.meaning}</p>
      {told.advice !== undefined && (
        <p>
          <b>What to do:</b> {told.advice}
        </p>
      )}
    </div>
  </section>
)

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

const Tiles = ({ now, status }: { readonly status: Status; readonly now: number }) => {
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
        note={asOf ?? (pending.exact ? "to be published" : "counting stops there")}
      />
      <Tile
        name="Oldest pending"
        value={known(oldest === undefined ? "none" : Words.duration(now - oldest))}
        note={asOf ?? (oldest === undefined ? "nothing waits" : "since it was created")}
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
        note={asOf ?? (parked.value > 0 ? "until somebody redrives" : "none failed for good")}
        tone={parked.value > 0 ? "attention" : ""}
      />
    </dl>
  )
}

const Part = ({ check, name }: { readonly name: string; readonly check: Check }) => (
  <li class={check.ok ? "good" : "trouble"}>
    <span class="sign" aria-hidden="true">
      {check.ok ? "✓" : "✕"}
    </span>
    <div>
      <b>{name}</b> <span class="dim">{check.ok ? "works" : "does not work"}</span>
      <div class="small wrap">{check.message}</div>
    </div>
  </li>
)

const Parts = ({
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
    <section class="panel parts" aria-labelledby="parts">
      <header>
        <h2 id="parts">Service</h2>
        <button type="button" onClick={onPrune}>
          Run retention…
        </button>
      </header>
      <ul>
        <Part name="Pump" check={health.pump} />
        <Part name="Sink" check={health.sink} />
        <Part name="Database" check={health.database} />
      </ul>
      <p class="dim small">
        controlpublish {version}, up for {Words.duration(now - startedAt)}. Retention: {retention}. Since the start:{" "}
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

const Charts = ({ points, theme }: { readonly points: Live["points"]; readonly theme: string }) => {
  const times = useMemo(() => points.map(({ at }) => at), [points])
  const column = (name: "appended" | "pending" | "published") => points.map((point) => point[name])
  return (
    <div class="charts">
      <Chart
        title="Backlog"
        unit="pending events"
        theme={theme}
        times={times}
        series={[{ name: "pending", colour: "colour-1", values: column("pending") }]}
      />
      <Chart
        title="Rates"
        unit="events a second"
        theme={theme}
        times={times}
        series={[
          { name: "published", colour: "colour-2", values: column("published") },
          { name: "appended", colour: "colour-3", dashed: true, values: column("appended") }
        ]}
      />
    </div>
  )
}

const ConnectionLost = ({ live }: { readonly live: Live }) =>
  live.connection !== "lost" ? null : (
    <div class="banner" role="alert">
      <b>The connection is lost.</b>{" "}
      {live.receivedAt === undefined ? "Nothing was received yet." : "What you see is old."} It is tried again by
      itself. {live.problem}
    </div>
  )

/** What the connection is like, and how old what is shown is. */
const Freshness = ({ live }: { readonly live: Live }) => {
  const age = live.receivedAt === undefined ? undefined : Date.now() - live.receivedAt
  const stale = live.connection !== "connected"
  return (
    <span class={`freshness ${stale ? "stale" : ""}`}>
      <span aria-hidden="true">{stale ? "○" : "●"}</span>{" "}
      {stale ? (age === undefined ? "connecting" : `as of ${Words.duration(age)} ago`) : "live"}
    </span>
  )
}

const pausing: Deed = {
  title: "Pause the pump?",
  explanation:
    "The pump of this process finishes what is in flight and publishes nothing more until it is resumed, or the service is started again. Other processes' pumps go on. Appends go on, and the backlog grows.",
  confirm: "Pause",
  dangerous: true,
  run: async (reason) => {
    await Api.switchPump("pause", reason)
    return "The pump is paused."
  }
}

const resuming: Deed = {
  title: "Resume the pump?",
  explanation: "It publishes what is pending, in order per key.",
  confirm: "Resume",
  run: async (reason) => {
    await Api.switchPump("resume", reason)
    return "The pump goes on."
  }
}

const pruning: Deed = {
  title: "Run the retention now?",
  explanation:
    "Removes the published events that the retention does not keep. Pending and parked ones are never removed.",
  confirm: "Run it",
  run: async (reason) => `${Words.plural((await Api.prune(reason)).affected, "published event")} removed.`
}

const mendings: Record<Api.Mending, Omit<Deed, "run"> & { readonly done: string }> = {
  redrive: {
    title: "Redrive this event?",
    explanation: "It becomes pending again, in its old place, with a fresh count of attempts. Mend the cause first.",
    confirm: "Redrive",
    done: "The event is pending again."
  },
  park: {
    title: "Park this event?",
    explanation: "It is not published before somebody redrives it.",
    confirm: "Park",
    dangerous: true,
    done: "The event is parked."
  },
  discard: {
    title: "Discard this event?",
    explanation:
      "It leaves the outbox for good and is never published. Only the audit keeps it. This cannot be undone.",
    confirm: "Discard for good",
    dangerous: true,
    done: "The event is discarded."
  }
}

const mending = (what: Api.Mending, { eventId, type }: EventSummary): Deed => {
  const { done, explanation, ...words } = mendings[what]
  return {
    ...words,
    explanation: `${type} ${eventId}. ${explanation}`,
    run: async (reason) => {
      await Api.mend(what, eventId, reason)
      return done
    }
  }
}

const redrivingAll = (filter: Api.Filter): Deed => {
  const which = describeFilter(filter)
  return {
    title: which === "" ? "Redrive all parked events?" : "Redrive the filtered parked events?",
    explanation: `${which === "" ? "All parked events become" : `The parked events with ${which} become`} pending again, in their old places, with a fresh count of attempts. Mend the cause first.`,
    confirm: "Redrive",
    run: async (reason) => `Pending again: ${Words.plural((await Api.redrive(filter, reason)).affected, "event")}.`
  }
}

/** How long a note stays. */
const noteStays = 8_000

export const App = () => {
  const [session, setSession] = useState(0)
  const [deed, setDeed] = useState<Deed>()
  const [tokenDialog, setTokenDialog] = useState<{ readonly why: string | undefined }>()
  const [note, setNote] = useState("")
  const [version, setVersion] = useState(0)
  const [place, go] = usePlace()
  const { choose, shown, theme } = useTheme()
  const live = useLive(session)
  const now = useNow(live)
  const { status } = live
  const told = status === undefined ? undefined : verdict(status, live.points)
  const connected = live.connection === "connected"

  useEffect(() => {
    if (live.connection === "refused") setTokenDialog({ why: live.problem })
  }, [live.connection])
  useEffect(() => {
    if (note === "") return
    const timer = setTimeout(() => setNote(""), noteStays)
    return () => clearTimeout(timer)
  }, [note])
  useEffect(() => {
    const sign = told === undefined ? "" : `${signs[told.level].sign} ${told.title} · `
    document.title = connected ? `${sign}controlpublish` : "? controlpublish"
  }, [told?.level, told?.title, connected])

  const showKey = (orderingKey: string): void => {
    go({ filter: { key: orderingKey }, event: undefined })
    document.getElementById("events")?.scrollIntoView()
  }
  const open = (eventId: string): void => go({ ...place, event: eventId })
  const close = (): void => go({ ...place, event: undefined })
  const mend = (what: Api.Mending, event: EventDetail | EventSummary): void => setDeed(mending(what, event))
  const done = (what: string): void => {
    setDeed(undefined)
    setNote(what)
    setVersion(version + 1)
  }
  const canSwitch = status !== undefined && !["inert", "stopping", "stopped"].includes(status.pump.state)
  const paused = status?.pump.state === "paused"

  return (
    <>
      <header class="top">
        <a class="skip" href="#events" onClick={(event) => skipToEvents(event)}>
          Skip to the events
        </a>
        <span class="name">controlpublish</span>
        {status !== undefined && <span class="dim sink">sink {status.pump.sink}</span>}
        <Freshness live={live} />
        <span class="space" />
        <label class="theme">
          <span class="sr">Colours</span>
          <select value={theme} onChange={(event) => choose(event.currentTarget.value as Theme)}>
            {themes.map((theme) => (
              <option key={theme} value={theme}>
                {theme === "system" ? "System colours" : theme === "light" ? "Light" : "Dark"}
              </option>
            ))}
          </select>
        </label>
        <button type="button" onClick={() => setTokenDialog({ why: undefined })}>
          Token
        </button>
        {canSwitch && (
          <button type="button" class={paused ? "primary" : ""} onClick={() => setDeed(paused ? resuming : pausing)}>
            {paused ? "Resume…" : "Pause…"}
          </button>
        )}
      </header>
      <ConnectionLost live={live} />
      <main class={connected ? "" : "stale"}>
        <p class="sr" role="status">
          {told === undefined ? "" : `${signs[told.level].name}: ${told.title}`}
        </p>
        {status === undefined || told === undefined ? (
          <p class="nothing">{live.connection === "refused" ? live.problem : "Waiting for the service…"}</p>
        ) : (
          <>
            <Headline told={told} now={now} />
            <Tiles status={status} now={now} />
            <Charts points={live.points} theme={shown} />
            <div class="two">
              <Lanes lanes={status.outbox?.lanes ?? []} now={now} onEvent={open} onKey={showKey} />
              <Parts status={status} now={now} onPrune={() => setDeed(pruning)} />
            </div>
            <Events
              filter={place.filter}
              counts={status.outbox}
              now={now}
              version={version}
              connected={connected}
              onFilter={(filter) => go({ filter, event: undefined })}
              onOpen={open}
              onRedrive={(event) => mend("redrive", event)}
              onRedriveAll={() => setDeed(redrivingAll(place.filter))}
            />
            <Audit now={now} version={version} onOpen={open} />
          </>
        )}
      </main>
      <div class="note" role="status">
        {note}
      </div>
      {place.event !== undefined && status !== undefined && (
        <EventDialog
          key={place.event}
          eventId={place.event}
          now={now}
          version={version}
          onClose={close}
          onKey={showKey}
          onMend={mend}
        />
      )}
      {deed !== undefined && (
        <ConfirmDialog
          deed={deed}
          onClose={() => setDeed(undefined)}
          onDone={done}
          onUnauthorized={() => setTokenDialog({ why: "This needs the token. Give it, then confirm again." })}
        />
      )}
      {tokenDialog !== undefined && (
        <TokenDialog
          why={tokenDialog.why}
          onClose={(changed) => {
            setTokenDialog(undefined)
            if (changed) setSession(session + 1)
          }}
        />
      )}
    </>
  )
}

const skipToEvents = (event: Event): void => {
  // The address is taken: it holds what is shown.
  event.preventDefault()
  document.querySelector<HTMLElement>("#events button")?.focus()
}
