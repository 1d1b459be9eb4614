/** The page's client of the HTTP API. */
import { EventSourceParserStream } from "eventsource-parser/stream"
import type { AuditPage, Erased, EventDetail, EventPage, EventState } from "../../OutboxAdmin.js"
import type { PumpStatus } from "../../PumpStatus.js"
import type { Node } from "../NodeView.js"
import type { History, Sample, Status } from "../AdminApi.js"

/** The service answered with an error. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string
  ) {
    super(message)
  }
}

const storedToken = "controlpublish.token"

/** Stored until the tab is closed. */
export const token = {
  get: (): string => sessionStorage.getItem(storedToken) ?? "",
  set: (value: string): void => {
    if (value === "") sessionStorage.removeItem(storedToken)
    else sessionStorage.setItem(storedToken, value)
  }
}

const headers = (): Record<string, string> => (token.get() === "" ? {} : { authorization: `Bearer ${token.get()}` })

const refusal = async (response: Response): Promise<Refused> => {
  const text = await response.text()
  let message = ""
  try {
    const body = JSON.parse(text) as { readonly message?: string; readonly field?: string }
    message = [body.field, body.message].filter((part) => part !== undefined && part !== "").join(": ")
  } catch {
    // The service's own errors are JSON.
  }
  return new Refused(response.status, message === "" ? `The service answered ${response.status}` : message)
}

interface Init extends RequestInit {
  readonly headers?: Record<string, string>
}

const request = async (path: string, init: Init): Promise<Response> => {
  const response = await fetch(path, { ...init, cache: "no-store", headers: { ...headers(), ...init.headers } })
  if (!response.ok) throw await refusal(response)
  return response
}

/** The message of an error. */
export const explain = (error: unknown): string => {
  if (error instanceof Refused) return error.message
  return error instanceof TypeError ? "the service does not answer" : String(error)
}

const get = async <A>(path: string, signal?: AbortSignal): Promise<A> =>
  (await (await request(path, { signal: signal ?? null })).json()) as A

const post = async <A>(path: string, body: unknown): Promise<A> =>
  (await (
    await request(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body)
    })
  ).json()) as A

/** The filter of the table of events. All given fields must match; the key may be empty. */
export interface Filter {
  readonly id?: string | undefined
  readonly type?: string | undefined
  readonly tenant?: string | undefined
  readonly key?: string | undefined
  readonly state?: EventState | undefined
}

interface Affected {
  readonly affected: number
}

const query = (fields: object): string => {
  const given = Object.entries(fields).filter((entry): entry is [string, string] => entry[1] !== undefined)
  return new URLSearchParams(given).toString()
}

const eventPath = (id: string): string => `api/events/${encodeURIComponent(id)}`

export const pageSize = 50

export const events = (filter: Filter, cursor: string | undefined, signal: AbortSignal): Promise<EventPage> =>
  get(`api/events?${query({ ...filter, cursor, limit: String(pageSize) })}`, signal)

export const event = (id: string, signal: AbortSignal): Promise<EventDetail> => get(eventPath(id), signal)

/** The whole payload as a file, and its name. */
export const payload = async (id: string): Promise<{ readonly blob: Blob; readonly name: string }> => {
  const response = await request(`${eventPath(id)}/payload`, {})
  const name = /filename="([^"]*)"/.exec(response.headers.get("content-disposition") ?? "")?.[1]
  return { blob: await response.blob(), name: name ?? "payload.json" }
}

export const history = async (signal: AbortSignal): Promise<ReadonlyArray<Sample>> =>
  (await get<typeof History.Type>("api/history", signal)).samples

export const node = (signal: AbortSignal): Promise<Node> => get("api/node", signal)

export const audit = (signal: AbortSignal): Promise<AuditPage> => get("api/audit?limit=20&changesOnly=true", signal)

/** An action on one event. */
export type Mending = "redrive" | "park" | "discard"

export const mend = (what: Mending, id: string, reason: string): Promise<Affected> =>
  post(`${eventPath(id)}/${what}`, { reason })

/** Erases the payload of an event, and answers what still has it. */
export const erase = async (id: string, reason: string): Promise<ReadonlyArray<string>> =>
  (await post<Erased>(`${eventPath(id)}/erase`, { reason })).remains

/** Redrives the parked events that match the filter. */
export const redrive = ({ id, key, tenant, type }: Filter, reason: string): Promise<Affected> =>
  post("api/redrive", { filter: { id, type, tenant, key }, reason })

export const prune = (reason: string): Promise<Affected> => post("api/retention/run", { reason })

export const switchPump = (to: "pause" | "resume", reason: string): Promise<PumpStatus> =>
  post(`api/pump/${to}`, { reason })

/** Calls back with each status of the stream. Rejects when the stream ends, is refused or is aborted. */
export const stream = async (onStatus: (status: Status) => void, signal: AbortSignal): Promise<never> => {
  const { body } = await request("api/stream", { signal, headers: { accept: "text/event-stream" } })
  const messages = body!.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream())
  for (let reader = messages.getReader(); ;) {
    const { done, value } = await reader.read()
    if (done) throw new TypeError("The stream ended")
    if (value.event === "status") onStatus(JSON.parse(value.data) as Status)
  }
}
