/**
 * Limits connections. A new connection is always accepted: it replaces one without a request in flight. If there is none,
 * it gets a place of the reserve, on which only health and metrics are answered.
 */
import type { IncomingMessage, ServerResponse } from "node:http"
import type { Socket } from "node:net"
import * as Addresses from "./addresses.js"

export interface Limits {
  /** Connections in all. */
  readonly total: number
  /** Connections of one address. */
  readonly ofAddress: number
  /** Connections beyond these, for health and metrics. */
  readonly reserve: number
  /** Unanswered requests of one connection. */
  readonly pipelined: number
}

interface Connection {
  readonly socket: Socket
  readonly address: string
  /** One of the reserve. */
  readonly spare: boolean
  /** Requests whose answer is not complete. */
  readonly exchanges: Set<IncomingMessage>
}

export interface Connections {
  readonly accept: (socket: Socket) => void
  /** Registers a request. Answers why it must not be handled, if so. */
  readonly begin: (request: IncomingMessage, response: ServerResponse) => "busy" | "pipelined" | undefined
  /** Closes the connections without a request. */
  readonly closeIdle: () => void
  readonly closeAll: () => void
}

/** With TLS, the socket of a request is not the accepted one. */
const keyOf = ({ remoteAddress, remotePort }: Socket): string => `${remoteAddress} ${remotePort}`

/** Whether the server owes no answer: there is no request, or it is not complete yet. */
const isReplaceable = ({ exchanges }: Connection): boolean => [...exchanges].every(({ complete }) => !complete)

const isVital = (url: string): boolean => /^\/(health\/|metrics(\?|$))/.test(url)

/** Connections of an exempt address count toward the total only, because it forwards many clients. */
export const make = (limits: Limits, isExempt: (address: string) => boolean): Connections => {
  // Least recently used first.
  const connections = new Map<string, Connection>()
  const counts = new Map<string, number>()
  let spares = 0

  const countOf = (address: string): number => counts.get(address) ?? 0

  const remove = (key: string, connection: Connection): void => {
    if (connections.get(key) !== connection) return
    connections.delete(key)
    if (connection.spare) spares--
    const rest = countOf(connection.address) - 1
    if (rest > 0) counts.set(connection.address, rest)
    else counts.delete(connection.address)
  }

  /** Closes the least recently used connection of the address that has the most. */
  const replace = (among: (connection: Connection) => boolean): boolean => {
    let victim: readonly [key: string, connection: Connection] | undefined
    for (const [key, connection] of connections) {
      if (!among(connection) || !isReplaceable(connection)) continue
      if (victim === undefined || countOf(connection.address) > countOf(victim[1].address)) victim = [key, connection]
    }
    if (victim === undefined) return false
    remove(...victim)
    victim[1].socket.destroy()
    return true
  }

  const hasRoom = (address: string): boolean => {
    if (countOf(address) >= limits.ofAddress && !isExempt(address)) {
      return replace((connection) => connection.address === address && !connection.spare)
    }
    return connections.size - spares < limits.total || replace(({ spare }) => !spare)
  }

  return {
    accept: (socket) => {
      // Node removes its own listener from some sockets, and an unhandled error event ends the process.
      socket.on("error", () => {})
      const key = keyOf(socket)
      const address = Addresses.group(socket.remoteAddress ?? "")
      const spare = !hasRoom(address)
      if (spare && spares >= limits.reserve && !replace((connection) => connection.spare)) {
        socket.destroy()
        return
      }
      const connection: Connection = { socket, address, spare, exchanges: new Set() }
      connections.set(key, connection)
      counts.set(address, countOf(address) + 1)
      if (spare) spares++
      socket.once("close", () => remove(key, connection))
    },

    begin: (request, response) => {
      const key = keyOf(request.socket)
      const connection = connections.get(key)
      // One that was replaced.
      if (connection === undefined) return "busy"
      const { exchanges } = connection
      exchanges.add(request)
      response.once("close", () => {
        exchanges.delete(request)
        if (connections.get(key) === connection && exchanges.size === 0) {
          connections.delete(key)
          connections.set(key, connection)
        }
      })
      if (exchanges.size > limits.pipelined) return "pipelined"
      return connection.spare && !isVital(request.url ?? "") ? "busy" : undefined
    },

    closeIdle: () => {
      for (const { exchanges, socket } of connections.values()) if (exchanges.size === 0) socket.destroy()
    },

    closeAll: () => {
      for (const { socket } of connections.values()) socket.destroy()
    }
  }
}
