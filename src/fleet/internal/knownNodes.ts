/**
 * What receivers know of nodes, and what they answer, for those that keep it in memory. The statements of the registry in
 * PostgreSQL say the same in SQL; test/support/nodeRegistrySuite.ts holds both to it.
 */
import type { FleetNode, FleetSummary, Laggard, NodePage, NodeState, Progress, Selection, Why } from "../FleetViews.js"
import type { NodeQuery, ProgressQuery } from "../NodeRegistry.js"
import type { Registration, Report } from "../NodeReport.js"
import type { Ticket } from "../NodeReports.js"

export interface Known {
  readonly registration: Registration
  readonly ticket: Ticket
  readonly starts: number
  readonly registeredAt: number
  readonly heardAt: number
  readonly sequence: number
  readonly state: NodeState
  readonly since: number
  readonly cursor: Report["cursor"]
  /** Until then it had everything that there was, as far as anybody knows. Outlives a restart. */
  readonly currentAt: number | undefined
  readonly trouble: Report["trouble"]
  /** The last position, also while it has not said where it is since its restart. */
  readonly last: { readonly feed: string; readonly position: number } | undefined
}

export const largestPage = 500

/** A node that registers: where it is, is unknown from now on. */
export const registered = (
  before: Known | undefined,
  registration: Registration,
  ticket: Ticket,
  now: number
): Known => ({
  registration,
  ticket,
  starts: (before?.starts ?? 0) + 1,
  registeredAt: now,
  heardAt: now,
  sequence: 0,
  state: "starting",
  since: now,
  cursor: undefined,
  currentAt: before?.currentAt,
  trouble: undefined,
  last: before?.last
})

/** A node that reports under its ticket. A late or doubled report changes nothing. */
export const reported = (before: Known, report: Report, now: number): Known => {
  if (report.sequence <= before.sequence) return before
  const { sequence, state, stateForMillis, trouble } = report
  const old = before.cursor
  const said = report.cursor
  const isBack = old !== undefined && said !== undefined && said.feed === old.feed && said.position < old.position
  const cursor = said === undefined || isBack ? old : said
  const behindFor = said?.behindForMillis
  return {
    ...before,
    heardAt: now,
    sequence,
    state,
    since: now - stateForMillis,
    cursor,
    currentAt: behindFor === undefined ? before.currentAt : now - behindFor,
    trouble,
    last: cursor ?? before.last
  }
}

const isSilent = ({ heardAt, registration }: Known, now: number): boolean =>
  now - heardAt > registration.silentAfterMillis

const lagOf = ({ cursor }: Known): number | undefined =>
  cursor === undefined ? undefined : Math.max(0, cursor.newest - cursor.position)

export const view = (known: Known, now: number): FleetNode => {
  const { currentAt, cursor, heardAt, registeredAt, registration, since, starts, state, trouble } = known
  const silent = isSilent(known, now)
  const lag = lagOf(known)
  const lagMillis = lag === 0 && !silent ? 0 : currentAt === undefined ? undefined : Math.max(0, now - currentAt)
  return {
    node: registration.node,
    kind: registration.kind,
    labels: registration.labels,
    version: registration.version,
    starts,
    registeredAt,
    heardAt,
    silent,
    state,
    since,
    ...(cursor === undefined ? {} : { feed: cursor.feed, position: cursor.position, lag: lag! }),
    ...(cursor === undefined || lagMillis === undefined ? {} : { lagMillis }),
    setAside: cursor?.asides.versions.slice(0, 10) ?? [],
    ...(trouble === undefined ? {} : { trouble })
  }
}

export const isChosen =
  ({ kind, labels, nodes }: Selection) =>
  ({ registration }: Known): boolean =>
    (nodes === undefined || nodes.includes(registration.node)) &&
    (kind === undefined || kind === registration.kind) &&
    Object.entries(labels ?? {}).every(([name, value]) => registration.labels[name] === value)

/** Why a node does not count as having applied a version; `undefined` if it does. */
const judge = (known: Known, version: number, feed: string | undefined, now: number): Why | undefined => {
  const { cursor, state } = known
  if (cursor === undefined) return isSilent(known, now) ? "silent" : "starting"
  if (cursor.feed !== feed) return "otherFeed"
  if (Math.max(cursor.position, cursor.through ?? 0) >= version) {
    if (cursor.asides.versions.includes(version)) return "setAside"
    return version < cursor.asides.completeFrom ? "unclear" : undefined
  }
  if (isSilent(known, now)) return "silent"
  switch (state) {
    case "halted":
    case "unavailable":
    case "paused":
    case "starting":
    case "stopped":
      return state
    case "stopping":
      return "stopped"
    case "applying":
    case "idle":
      return "behind"
  }
}

const byName = (one: string, other: string) => (one < other ? -1 : one > other ? 1 : 0)

const tally = <K extends string>(keys: Iterable<K>): ReadonlyArray<readonly [K, number]> => {
  const counts = new Map<K, number>()
  for (const key of keys) counts.set(key, (counts.get(key) ?? 0) + 1)
  return Array.from(counts).sort(([one, a], [other, b]) => b - a || byName(one, other))
}

/** The feed that the nodes agree on. */
const agreed = (known: ReadonlyArray<Known>): string | undefined => {
  const feeds = new Set(known.flatMap(({ cursor }) => (cursor === undefined ? [] : [cursor.feed])))
  return feeds.size === 1 ? Array.from(feeds)[0] : undefined
}

export const progress = (all: Iterable<Known>, query: ProgressQuery, now: number): Progress => {
  const { after = "", limit, selection = {}, version } = query
  const chosen = Array.from(all).filter(isChosen(selection))
  const feed = query.feed ?? agreed(chosen)
  const found = new Set(chosen.map(({ registration }) => registration.node))
  const missing = Array.from(new Set(selection.nodes ?? [])).filter((node) => !found.has(node))
  const laggards: ReadonlyArray<Laggard> = [
    ...missing.map((node): Laggard => ({ node, why: "unregistered" })),
    ...chosen.flatMap((known): ReadonlyArray<Laggard> => {
      const why = judge(known, version, feed, now)
      return why === undefined ? [] : [{ node: known.registration.node, why, known: view(known, now) }]
    })
  ].sort((one, other) => byName(one.node, other.node))
  return {
    at: now,
    version,
    ...(feed === undefined ? {} : { feed }),
    chosen: chosen.length + missing.length,
    applied: chosen.length + missing.length - laggards.length,
    others: tally(laggards.map(({ why }) => why)).map(([why, nodes]) => ({ why, nodes })),
    laggards: laggards.filter(({ node }) => node > after).slice(0, Math.min(limit, largestPage))
  }
}

export const page = (all: Iterable<Known>, query: NodeQuery, now: number): NodePage => {
  const { after = "", selection = {}, state } = query
  const limit = Math.min(query.limit, largestPage)
  const found = Array.from(all)
    .filter(isChosen(selection))
    .filter((known) => {
      if (state === undefined) return true
      return state === "silent" ? isSilent(known, now) : known.state === state && !isSilent(known, now)
    })
    .map((known) => view(known, now))
    .filter(({ node }) => node > after)
    .sort((one, other) => byName(one.node, other.node))
  const nodes = found.slice(0, limit)
  return { at: now, nodes, ...(found.length > limit ? { next: nodes[nodes.length - 1]!.node } : {}) }
}

export const summary = (all: Iterable<Known>, selection: Selection, now: number): FleetSummary => {
  const known = Array.from(all)
    .filter(isChosen(selection))
    .sort((one, other) => byName(one.registration.node, other.registration.node))
  const views = known.map((known) => view(known, now))
  const heard = views.filter(({ silent }) => !silent)
  const most = (values: ReadonlyArray<number | undefined>) => Math.max(0, ...values.map((value) => value ?? 0))
  return {
    at: now,
    nodes: views.length,
    silent: views.length - heard.length,
    states: tally(heard.map(({ state }) => state)).map(([state, nodes]) => ({ state, nodes })),
    setAside: views.filter(({ setAside }) => setAside.length > 0).length,
    lag: { versions: most(heard.map(({ lag }) => lag)), millis: most(heard.map(({ lagMillis }) => lagMillis)) },
    feeds: tally(views.flatMap(({ feed }) => (feed === undefined ? [] : [feed])))
      .slice(0, 10)
      .map(([feed, nodes]) => ({ feed, nodes })),
    versions: tally(views.map(({ version }) => version))
      .slice(0, 20)
      .map(([version, nodes]) => ({ version, nodes })),
    slowest: heard
      .filter(({ lag }) => lag !== undefined && lag > 0)
      .sort((one, other) => other.lag! - one.lag! || byName(one.node, other.node))
      .slice(0, 10),
    held: heard.filter(({ state }) => state === "halted" || state === "unavailable").slice(0, 10),
    unheard: views
      .filter(({ silent }) => silent)
      .sort((one, other) => one.heardAt - other.heardAt || byName(one.node, other.node))
      .slice(0, 10)
  }
}
