/** Follows the status of the service and keeps the points of the charts. */
import { useEffect, useRef, useState } from "preact/hooks"
import type { Sample, Status } from "../AdminApi.js"
import * as Api from "./api.js"

/** The stream counts as lost after so many milliseconds of silence. */
const silence = 5_000

const firstRetry = 500

const longestRetry = 5_000

/** How long a point stays on the charts. */
const remembered = 10 * 60_000

export interface Point {
  readonly at: number
  readonly pending: number | null
  readonly appended: number | null
  readonly published: number | null
}

export interface Live {
  readonly connection: "connecting" | "connected" | "lost" | "refused"
  /** Why it is not connected. */
  readonly problem: string | undefined
  readonly status: Status | undefined
  /** By this clock, when the last status came in. */
  readonly receivedAt: number | undefined
  readonly points: ReadonlyArray<Point>
}

const nothing: Live = {
  connection: "connecting",
  problem: undefined,
  status: undefined,
  receivedAt: undefined,
  points: []
}

const pointOfSample = ({ appended, at, pending, published }: Sample): Point => ({
  at,
  pending: pending ?? null,
  appended: appended ?? null,
  published: published ?? null
})

const remembering = (live: Live, samples: ReadonlyArray<Sample>): Live => {
  const points = samples.map(pointOfSample)
  const last = points[points.length - 1]?.at ?? 0
  return { ...live, points: [...points, ...live.points.filter(({ at }) => at > last)] }
}

const pointOf = ({ at, health, outbox, rates }: Status): Point => ({
  at,
  pending: health.database.ok && outbox !== undefined ? outbox.pending.value : null,
  appended: rates.appended ?? null,
  published: rates.published ?? null
})

const received = (live: Live, status: Status): Live => ({
  connection: "connected",
  problem: undefined,
  status,
  receivedAt: Date.now(),
  points: [...live.points.filter(({ at }) => at < status.at && status.at - at < remembered), pointOf(status)]
})

const connectionAfter = (error: unknown): Live["connection"] =>
  error instanceof Api.Refused && error.status === 401 ? "refused" : "lost"

/** Follows the stream while the component is mounted. A new `session` restarts it. */
export const useLive = (session: number): Live => {
  const [live, setLive] = useState(nothing)
  useEffect(() => {
    const closed = new AbortController()
    let retryTimer: ReturnType<typeof setTimeout> | undefined
    let wait = firstRetry
    const connect = (): void => {
      const attempt = new AbortController()
      const end = AbortSignal.any([closed.signal, attempt.signal])
      let watchdog: ReturnType<typeof setTimeout>
      const hear = (): void => {
        clearTimeout(watchdog)
        watchdog = setTimeout(() => attempt.abort(new TypeError("Nothing was heard")), silence)
      }
      hear()
      // The stream has only new points. Without the history, the charts begin now.
      Api.history(end)
        .then((samples) => setLive((live) => remembering(live, samples)))
        .catch(() => {})
      Api.stream((status) => {
        hear()
        wait = firstRetry
        setLive((live) => received(live, status))
      }, end).catch((error: unknown) => {
        clearTimeout(watchdog)
        if (closed.signal.aborted) return
        const connection = connectionAfter(error)
        setLive((live) => ({ ...live, connection, problem: Api.explain(error) }))
        // The service slows down whoever sends wrong tokens.
        if (connection === "refused") wait = longestRetry
        retryTimer = setTimeout(connect, wait)
        wait = Math.min(wait * 2, longestRetry)
      })
    }
    // A second refusal has to be shown, too.
    setLive((live) => (live.connection === "refused" ? { ...live, connection: nothing.connection } : live))
    connect()
    return () => {
      closed.abort()
      clearTimeout(retryTimer)
    }
  }, [session])
  return live
}

/** The service's clock, updated once a second. */
export const useNow = ({ receivedAt, status }: Live): number => {
  const [now, setNow] = useState(Date.now())
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1_000)
    return () => clearInterval(timer)
  }, [])
  const ahead = status === undefined || receivedAt === undefined ? 0 : status.at - receivedAt
  return Math.max(now, receivedAt ?? 0) + ahead
}

/** Loads again whenever `inputs` change, and keeps the previous value until then. */
export const useLoaded = <A>(
  load: (signal: AbortSignal) => Promise<A>,
  inputs: ReadonlyArray<unknown>
): { readonly value: A | undefined; readonly error: unknown; readonly loading: boolean } => {
  const [state, setState] = useState<{ value: A | undefined; error: unknown; loading: boolean }>({
    value: undefined,
    error: undefined,
    loading: true
  })
  const latest = useRef(load)
  latest.current = load
  useEffect(() => {
    const closed = new AbortController()
    setState(({ error, value }) => ({ value, error, loading: true }))
    latest
      .current(closed.signal)
      .then((value) => ({ value, error: undefined }))
      .catch((error: unknown) => ({ value: undefined, error }))
      .then((answer) => {
        if (!closed.signal.aborted) setState({ ...answer, loading: false })
      })
      .catch(() => {})
    return () => closed.abort()
  }, inputs)
  return state
}
