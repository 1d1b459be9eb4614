import { Effect } from "effect"
import { once } from "node:events"
import { connect, createServer, type AddressInfo, type Socket } from "node:net"

/** What a valve does to what passes it: `hold` keeps it back, `drop` makes it vanish. */
export type Flow = "pass" | "hold" | "drop"

export interface Flows {
  readonly toServer: Flow
  readonly toClient: Flow
}

/** A TCP proxy before a server, which can hold back or drop what goes each way, and cut connections. */
export interface Valve {
  readonly port: number
  /** Changes the flows. What was held goes on where its way is open again. */
  readonly set: (change: Partial<Flows>) => void
  /** How many bytes were held back or dropped, each way, since the flows were set. */
  readonly withheld: () => Readonly<Record<keyof Flows, number>>
  /** Ends all connections, and forgets what is held. */
  readonly cut: () => void
  readonly close: () => void
}

export const openValve = async (target: () => number): Promise<Valve> => {
  const pairs = new Set<readonly [client: Socket, server: Socket]>()
  let flows: Flows = { toServer: "pass", toClient: "pass" }
  const held: Record<keyof Flows, Map<Socket, Array<Buffer>>> = { toServer: new Map(), toClient: new Map() }
  let withheld = { toServer: 0, toClient: 0 }
  const route = (from: Socket, to: Socket, way: keyof Flows) => {
    from.on("data", (data) => {
      if (flows[way] === "pass") {
        to.write(data)
        return
      }
      withheld[way] += data.length
      if (flows[way] === "hold") held[way].set(to, [...(held[way].get(to) ?? []), data])
    })
  }
  const cut = () => {
    for (const [client, server] of pairs) {
      client.destroy()
      server.destroy()
    }
    pairs.clear()
    held.toServer.clear()
    held.toClient.clear()
  }
  const listener = createServer((client) => {
    const server = connect(target(), "127.0.0.1")
    const pair = [client, server] as const
    pairs.add(pair)
    route(client, server, "toServer")
    route(server, client, "toClient")
    for (const socket of pair) {
      socket.on("error", () => {})
      socket.on("close", () => {
        // A half-open connection: nobody hears of it that the other end is gone.
        if (flows.toServer !== "pass" || flows.toClient !== "pass") return
        client.destroy()
        server.destroy()
        pairs.delete(pair)
      })
    }
  })
  listener.listen(0, "127.0.0.1")
  await once(listener, "listening")
  return {
    port: (listener.address() as AddressInfo).port,
    set: (change) => {
      flows = { ...flows, ...change }
      withheld = { toServer: 0, toClient: 0 }
      for (const way of ["toServer", "toClient"] as const) {
        if (flows[way] === "hold") continue
        if (flows[way] === "pass") {
          for (const [socket, chunks] of held[way]) for (const chunk of chunks) socket.write(chunk)
        }
        held[way].clear()
      }
    },
    withheld: () => withheld,
    cut,
    close: () => {
      cut()
      listener.close()
    }
  }
}

/** A valve that lives as long as the scope. */
export const valve = (port: number) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(() => openValve(() => port)),
      (valve) => Effect.sync(() => valve.close())
    ),
    (valve) => ({
      port: valve.port,
      set: (change: Partial<Flows>) => Effect.sync(() => valve.set(change)),
      cut: Effect.sync(valve.cut)
    })
  )
