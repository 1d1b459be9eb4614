/** The page as a whole. */
import { useEffect, useState } from "preact/hooks"
import type { EventDetail, EventSummary } from "../../OutboxAdmin.js"
import * as Api from "./api.js"
import { Audit } from "./Audit.js"
import { Charts } from "./Charts.js"
import { ConnectionLost, Freshness } from "./Connection.js"
import { erasing, mending, pausing, pruning, redrivingAll, resuming } from "./deeds.js"
import { ConfirmDialog, TokenDialog, type Deed } from "./Dialog.js"
import { EventDialog } from "./EventDialog.js"
import { Events } from "./Events.js"
import { Headline, signs } from "./Headline.js"
import { Lanes } from "./Lanes.js"
import { useLive, useNow } from "./live.js"
import { firstState, usePlace } from "./place.js"
import { Node, nodeVerdict, useNode } from "./Node.js"
import { useNarrow } from "./narrow.js"
import { Service } from "./Service.js"
import { themes, useTheme, type Theme } from "./theme.js"
import { Tiles } from "./Tiles.js"
import { verdict } from "./verdict.js"

/** How long a note stays, in milliseconds. */
const noteStays = 8_000

export const App = () => {
  const [session, setSession] = useState(0)
  const [deed, setDeed] = useState<Deed>()
  const [tokenDialog, setTokenDialog] = useState<{ readonly why: string | undefined }>()
  const [note, setNote] = useState("")
  const [version, setVersion] = useState(0)
  // Whether the service has asked for a token.
  const [asked, setAsked] = useState(false)
  const [chosen, go] = usePlace()
  const { choose, shown, theme } = useTheme()
  const live = useLive(session)
  const now = useNow(live)
  // On a phone, events come first: the lanes fill the screen there.
  const narrow = useNarrow()
  const { status } = live
  const connected = live.connection === "connected"
  const found = useNode(connected)
  const applier = found.node?.applier
  // A process that has a node and no outbox shows the node alone.
  const nodeAlone = applier !== undefined && status?.pump.state === "inert"
  const told = nodeAlone ? nodeVerdict(applier) : status === undefined ? undefined : verdict(status, live.points)
  const place = chosen.stateChosen
    ? chosen
    : { ...chosen, filter: { ...chosen.filter, state: firstState(status?.outbox) } }
  const askForToken = (why: string | undefined): void => {
    setAsked(true)
    setTokenDialog({ why })
  }

  useEffect(() => {
    if (live.connection === "refused") askForToken(live.problem)
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

  const lanes = status !== undefined && (
    <div class="two" key="lanes">
      <Lanes lanes={status.outbox?.lanes ?? []} now={now} onEvent={open} onKey={showKey} />
      <Service status={status} now={now} onPrune={() => setDeed(pruning(status.retention))} />
    </div>
  )
  const events = status !== undefined && (
    <Events
      key="events"
      filter={place.filter}
      counts={status.outbox}
      now={now}
      version={version}
      connected={connected}
      onFilter={(filter) => go({ filter, event: undefined })}
      onOpen={open}
      onRedrive={(event) => mend("redrive", event)}
      onRedriveAll={() => setDeed(redrivingAll(place.filter, status.outbox?.parked))}
    />
  )

  return (
    <>
      <header class="top">
        <a class="skip" href="#events" onClick={(event) => skipToEvents(event)}>
          Skip to events
        </a>
        <span class="name">controlpublish</span>
        {status !== undefined && !nodeAlone && <span class="dim sink">sink {status.pump.sink}</span>}
        <Freshness live={live} />
        <span class="space" />
        <label class="theme">
          <span class="sr">Colors</span>
          <select value={theme} onChange={(event) => choose(event.currentTarget.value as Theme)}>
            {themes.map((theme) => (
              <option key={theme} value={theme}>
                {theme === "system" ? "System colors" : theme === "light" ? "Light" : "Dark"}
              </option>
            ))}
          </select>
        </label>
        {(asked || Api.token.get() !== "") && (
          <button type="button" onClick={() => setTokenDialog({ why: undefined })}>
            Token
          </button>
        )}
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
            {!nodeAlone && <Tiles status={status} now={now} />}
            {!nodeAlone && <Charts points={live.points} theme={shown} />}
            <Node {...found} now={now} />
            {!nodeAlone && (narrow ? [events, lanes] : [lanes, events])}
            {!nodeAlone && <Audit now={now} version={version} onOpen={open} />}
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
          onErase={(event) => setDeed(erasing(event))}
        />
      )}
      {deed !== undefined && (
        <ConfirmDialog
          deed={deed}
          onClose={() => setDeed(undefined)}
          onDone={done}
          onUnauthorized={() => askForToken("This needs a token. Enter it, then confirm again.")}
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
  // The fragment holds what the page shows.
  event.preventDefault()
  document.querySelector<HTMLElement>("#events button")?.focus()
}
