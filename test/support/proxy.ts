import { Effect } from "effect"
import { once } from "node:events"
import { connect, createServer, type AddressInfo, type Socket } from "node:net"

/** A TCP proxy before a server, which stops to pass anything on when it is told to, and keeps every connection open. Thawed, it serves those to come. */
export const freezingProxy = (target: URL) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const sockets: Array<Socket> = []
      let frozen = false
      const freeze = () => {
        frozen = true
        for (const socket of sockets) socket.unpipe().pause()
      }
      const server = createServer((inbound) => {
        const outbound = connect(Number(target.port || 5432), target.hostname)
        sockets.push(inbound, outbound)
        for (const socket of [inbound, outbound]) socket.on("error", () => {})
        inbound.pipe(outbound)
        outbound.pipe(inbound)
        if (frozen) freeze()
      })
      server.listen(0, "127.0.0.1")
      await once(server, "listening")
      const url = new URL(target)
      url.hostname = "127.0.0.1"
      url.port = String((server.address() as AddressInfo).port)
      const close = () => {
        sockets.forEach((socket) => socket.destroy())
        server.close()
      }
      const thaw = () => {
        frozen = false
      }
      return { url, freeze: Effect.sync(freeze), thaw: Effect.sync(thaw), close }
    }),
    ({ close }) => Effect.sync(close)
  )
