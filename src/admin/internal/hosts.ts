/** The names by which the service may be asked for. */
import { isIP } from "node:net"
import { isLoopbackHeader } from "./loopback.js"

export interface Options {
  /** Whether the service listens for this machine alone. */
  readonly loopback: boolean
  /** Names that a proxy passes on, in small letters, with or without a port. */
  readonly allowed: ReadonlySet<string>
}

/** A `Host` header without its port, in small letters. */
const nameOf = (host: string): string => host.toLowerCase().replace(/:\d+$/, "")

/**
 * Whether a `Host` header names this service. A name that somebody else's DNS points here is how a page of theirs would get
 * in. An address is nobody's name: beyond this machine probes and scrapers use it.
 */
export const isOurs = (host: string, { allowed, loopback }: Options): boolean => {
  if (isLoopbackHeader(host) || allowed.has(host.toLowerCase()) || allowed.has(nameOf(host))) return true
  return !loopback && (allowed.size === 0 || isIP(nameOf(host).replace(/^\[|\]$/g, "")) !== 0)
}

/** Whether a page of this origin is one of ours: it comes from the host that is asked, or from an allowed name. */
export const isOurOrigin = (origin: string, host: string, { allowed }: Options): boolean => {
  const from = URL.canParse(origin) ? new URL(origin).host : undefined
  return from !== undefined && from !== "" && (from === host.toLowerCase() || allowed.has(from))
}
