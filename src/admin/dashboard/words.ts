/** Numbers, times and states in words. */
import type { Count, EventState } from "../../OutboxAdmin.js"

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 })

const oneDecimal = new Intl.NumberFormat("en", { maximumFractionDigits: 1 })

const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 })

export const number = (value: number): string => grouped.format(value)

/** A count that stopped at a limit is a lower bound. */
export const count = ({ exact, value }: typeof Count.Type): string => `${grouped.format(value)}${exact ? "" : "+"}`

export const shortCount = ({ exact, value }: typeof Count.Type): string => `${short.format(value)}${exact ? "" : "+"}`

/** A count that fits a lane's cell: three characters at most. */
export const tinyCount = ({ exact, value }: typeof Count.Type): string => (value > 99 || !exact ? "99+" : String(value))

export const rate = (value: number | undefined): string =>
  value === undefined ? "–" : value < 10 ? oneDecimal.format(value) : grouped.format(value)

export const plural = (value: number, one: string, more = `${one}s`): string =>
  `${grouped.format(value)} ${value === 1 ? one : more}`

export const events = (value: typeof Count.Type): string =>
  value.exact ? plural(value.value, "event") : `more than ${plural(value.value, "event")}`

const units = [
  ["d", 86_400],
  ["h", 3_600],
  ["min", 60],
  ["s", 1]
] as const

/** A duration in its two largest units: `3 d 4 h`. */
export const duration = (millis: number): string => {
  const seconds = Math.max(0, Math.floor(millis / 1000))
  const first = units.findIndex(([, size]) => seconds >= size)
  if (first === -1) return "0 s"
  const [unit, size] = units[first]!
  const next = units[first + 1]
  const rest = next === undefined ? 0 : Math.floor((seconds % size) / next[1])
  const whole = `${Math.floor(seconds / size)} ${unit}`
  return rest === 0 || next === undefined ? whole : `${whole} ${rest} ${next[0]}`
}

/** A duration in its largest unit: `3d`. */
export const shortDuration = (millis: number): string => {
  const seconds = Math.max(0, Math.floor(millis / 1000))
  const [unit, size] = units.find(([, size]) => seconds >= size) ?? units[3]
  return `${Math.floor(seconds / size)}${unit === "min" ? "m" : unit}`
}

export const ago = (at: number, now: number): string => (now - at < 1_000 ? "just now" : `${duration(now - at)} ago`)

/** Before or after now. */
export const relative = (at: number, now: number): string => (at > now ? `in ${duration(at - now)}` : ago(at, now))

const clock = new Intl.DateTimeFormat(undefined, {
  year: "numeric",
  month: "short",
  day: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  timeZoneName: "short"
})

/** With the time zone, since people share what they see. */
export const time = (at: number): string => clock.format(at)

/** An ordering key may be empty. */
export const key = (orderingKey: string): string => (orderingKey === "" ? "(no tenant)" : orderingKey)

export const states: Record<EventState, { readonly sign: string; readonly name: string; readonly meaning: string }> = {
  parked: { sign: "■", name: "Parked", meaning: "The pump does not retry it until it is redriven." },
  waiting: { sign: "↻", name: "Waiting", meaning: "An attempt failed. The pump retries it by itself." },
  pending: { sign: "…", name: "Pending", meaning: "The pump has not published it yet." },
  published: { sign: "✓", name: "Published", meaning: "It is in the feed." }
}
