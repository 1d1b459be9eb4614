import type { Stranger } from "../OutboxViews.js"
import { quote } from "./printable.js"

/** Numbers as ranges: 0-3, 7. */
const ranges = (numbers: ReadonlyArray<number>): string => {
  const found: Array<[number, number]> = []
  for (const number of numbers) {
    const last = found[found.length - 1]
    if (last !== undefined && number === last[1] + 1) last[1] = number
    else found.push([number, number])
  }
  return found.map(([first, last]) => (first === last ? String(first) : `${first}-${last}`)).join(", ")
}

const held = ({ keys, lanes }: Stranger): string =>
  [
    ...(lanes.length === 0 ? [] : [`${lanes.length === 1 ? "lane" : "lanes"} ${ranges(lanes)}`]),
    ...(keys === 0 ? [] : [`the locks of ${keys} of 4096 groups of ordering keys`])
  ].join(" and ")

/** Says which session holds what up, and how to end it. */
export const describe = (stranger: Stranger): string => {
  const { application, pid, since, user } = stranger
  const time = since === undefined ? "" : `, since ${new Date(since).toISOString()}`
  return `session ${pid} (user ${quote(user)}, application ${quote(application)}${time}) is no pump and holds ${held(stranger)}: end it with SELECT pg_terminate_backend(${pid})`
}
