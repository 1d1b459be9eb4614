/** IP addresses, as sockets and headers write them. */
import * as Either from "effect/Either"
import { BlockList, isIP } from "node:net"

/** Removes port, brackets and zone, and unwraps IPv4-mapped IPv6. Answers `undefined` if the text is no address. */
export const parse = (text: string): string | undefined => {
  const given = text.trim()
  const bare = /^\[([^\]]+)\](:\d+)?$/.exec(given)?.[1] ?? (/^([\d.]+):\d+$/.exec(given)?.[1] || given)
  const address = bare.replace(/%.*$/, "").toLowerCase()
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/.exec(address)?.[1]
  const plain = mapped ?? address
  return isIP(plain) === 0 ? undefined : plain
}

const familyOf = (address: string): "ipv4" | "ipv6" => (isIP(address) === 4 ? "ipv4" : "ipv6")

/** The first four groups of an IPv6 address. */
const network = (address: string): string => {
  const [head = "", tail] = address.split("::")
  const left = head === "" ? [] : head.split(":")
  const right = tail === undefined || tail === "" ? [] : tail.split(":")
  const zeros = tail === undefined ? 0 : Math.max(8 - left.length - right.length, 0)
  return [...left, ...Array.from({ length: zeros }, () => "0"), ...right].slice(0, 4).join(":")
}

/** The unit that limits count as one client: an IPv4 address, or an IPv6 /64 network. */
export const group = (text: string): string => {
  const address = parse(text)
  if (address === undefined) return text
  return isIP(address) === 4 || address === "::1" ? address : `${network(address)}::/64`
}

/** Whether an address is one of a list. */
export type Matches = (address: string | undefined) => boolean

/** Parses addresses and networks (`10.0.0.0/8`), separated by commas. Fails with the first invalid entry. */
export const parseList = (text: string): Either.Either<Matches, string> => {
  const list = new BlockList()
  for (const entry of text.split(",").map((entry) => entry.trim())) {
    const [address = "", prefix, ...rest] = entry.split("/")
    const parsed = parse(address)
    const bits = prefix === undefined ? undefined : /^\d{1,3}$/.test(prefix) ? Number(prefix) : Number.NaN
    if (parsed === undefined || rest.length > 0) return Either.left(entry)
    const family = familyOf(parsed)
    if (bits === undefined) list.addAddress(parsed, family)
    else if (bits <= (family === "ipv4" ? 32 : 128)) list.addSubnet(parsed, bits, family)
    else return Either.left(entry)
  }
  return Either.right((text) => {
    const address = text === undefined ? undefined : parse(text)
    return address !== undefined && list.check(address, familyOf(address))
  })
}

/**
 * The client's address: the socket's, or if that is a trusted proxy, the last address of `X-Forwarded-For` that is none.
 * The client can forge everything before it.
 */
export const clientOf = (
  peer: string | undefined,
  forwarded: string | undefined,
  isProxy: Matches
): string | undefined => {
  if (forwarded === undefined || !isProxy(peer)) return peer
  for (const hop of forwarded.split(",").reverse()) {
    const address = parse(hop)
    if (address === undefined) return peer
    if (!isProxy(address)) return address
  }
  return peer
}
