/** The 64 lanes: the backlog of each, and the age of its head. */
import { useRef, useState } from "preact/hooks"
import type { Overview } from "../../OutboxAdmin.js"
import { Dialog } from "./Dialog.js"
import * as Words from "./words.js"

type Lane = Overview["lanes"][number]

const laneCount = 64

/** A head older than this stands out. */
const old = 60_000

const isBusy = (lane: Lane | undefined): lane is Lane =>
  lane !== undefined && (lane.pending.value > 0 || lane.parked.value > 0)

const spoken = ({ head, lane, parked, pending }: Lane, now: number): string =>
  [
    `Lane ${lane}: ${Words.count(pending)} pending`,
    head === undefined ? "" : `head ${Words.duration(now - head.createdAt)} old`,
    head?.nextAttemptAt === undefined ? "" : "waiting for a retry",
    parked.value === 0 ? "" : `${Words.count(parked)} parked`
  ]
    .filter((part) => part !== "")
    .join(", ")

const look = ({ head, parked }: Lane, now: number): string => {
  if (head !== undefined && (head.nextAttemptAt !== undefined || now - head.createdAt > old)) return "stuck"
  return parked.value > 0 ? "has-parked" : "moving"
}

const moves: Readonly<Record<string, number>> = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }

export const Lanes = (props: {
  readonly lanes: ReadonlyArray<Lane>
  readonly now: number
  readonly onEvent: (eventId: string) => void
  readonly onKey: (orderingKey: string) => void
}) => {
  const { lanes, now, onEvent, onKey } = props
  const list = useRef<HTMLUListElement>(null)
  const [current, setCurrent] = useState<number>()
  const [open, setOpen] = useState<number>()
  const byNumber = new Map(lanes.map((lane) => [lane.lane, lane]))
  const busy = lanes.filter(isBusy)
  // One stop for the Tab key; arrows go on from there.
  const stop = busy.some(({ lane }) => lane === current) ? current : busy[0]?.lane
  const shown = open === undefined ? undefined : (byNumber.get(open) ?? emptyLane(open))

  const onKeyDown = (event: KeyboardEvent): void => {
    const step = moves[event.key]
    if (step === undefined) return
    event.preventDefault()
    const buttons = [...list.current!.querySelectorAll("button")]
    const at = buttons.findIndex((button) => button === document.activeElement)
    buttons[(at + step + buttons.length) % buttons.length]?.focus()
  }

  return (
    <section class="panel" aria-labelledby="lanes">
      <header>
        <h2 id="lanes">Lanes</h2>
        <p class="dim small">
          {busy.length === 0
            ? "All 64 lanes are empty."
            : `${busy.length} of ${laneCount} lanes hold events. Each cell: pending events, age of the head, ↻ waiting for a retry, ■ parked.`}
        </p>
      </header>
      <ul class="lanes" ref={list} onKeyDown={onKeyDown}>
        {Array.from({ length: laneCount }, (_, number) => {
          const lane = byNumber.get(number)
          if (!isBusy(lane)) {
            return (
              <li key={number} class="empty">
                <span class="number">{number}</span>
                <span class="sr">: empty</span>
              </li>
            )
          }
          return (
            <li key={number}>
              <button
                type="button"
                class={look(lane, now)}
                tabIndex={number === stop ? 0 : -1}
                onFocus={() => setCurrent(number)}
                onClick={() => setOpen(number)}
              >
                <span class="sr">{spoken(lane, now)}</span>
                <span class="cell" aria-hidden="true">
                  <span class="number">{number}</span>
                  <b>{lane.pending.value > 0 && Words.tinyCount(lane.pending)}</b>
                  <span class="age">
                    {lane.head === undefined
                      ? ""
                      : `${lane.head.nextAttemptAt === undefined ? "" : "↻"}${Words.shortDuration(now - lane.head.createdAt)}`}
                    {lane.parked.value > 0 && <span class="parked">■{Words.tinyCount(lane.parked)}</span>}
                  </span>
                </span>
              </button>
            </li>
          )
        })}
      </ul>
      {shown !== undefined && (
        <Dialog title={`Lane ${shown.lane}`} onClose={() => setOpen(undefined)}>
          <LaneDetail
            lane={shown}
            now={now}
            onEvent={onEvent}
            onKey={(orderingKey) => {
              setOpen(undefined)
              onKey(orderingKey)
            }}
          />
        </Dialog>
      )}
    </section>
  )
}

const emptyLane = (lane: number): Lane => {
  const none = { value: 0, exact: true }
  return { lane, pending: none, parked: none }
}

const LaneDetail = (props: {
  readonly lane: Lane
  readonly now: number
  readonly onEvent: (eventId: string) => void
  readonly onKey: (orderingKey: string) => void
}) => {
  const { lane, now, onEvent, onKey } = props
  const { head, parked, pending } = lane
  return (
    <div class="stack">
      <p>
        {Words.count(pending)} pending, {Words.count(parked)} parked.
        {head === undefined ? " The lane has no head." : " Head of the lane, published next:"}
      </p>
      {head !== undefined && (
        <>
          <dl>
            <dt>Event</dt>
            <dd>
              <button type="button" class="link" onClick={() => onEvent(head.eventId)}>
                {head.eventId}
              </button>
            </dd>
            <dt>Type</dt>
            <dd>{head.type}</dd>
            <dt>Ordering key</dt>
            <dd>
              <button type="button" class="link" onClick={() => onKey(head.orderingKey)}>
                {Words.key(head.orderingKey)}
              </button>
            </dd>
            <dt>Created</dt>
            <dd>
              {Words.time(head.createdAt)} · {Words.ago(head.createdAt, now)}
            </dd>
            <dt>Attempts</dt>
            <dd>{head.attemptCount}</dd>
            {head.nextAttemptAt !== undefined && (
              <>
                <dt>Retry at</dt>
                <dd>
                  {Words.time(head.nextAttemptAt)} · {Words.relative(head.nextAttemptAt, now)}
                </dd>
              </>
            )}
            {head.lastError !== undefined && (
              <>
                <dt>Last error</dt>
                <dd class="error">{head.lastError}</dd>
              </>
            )}
          </dl>
          {head.nextAttemptAt !== undefined && (
            <p class="dim">Later events of this key wait behind it. Other keys of the lane continue.</p>
          )}
        </>
      )}
    </div>
  )
}
