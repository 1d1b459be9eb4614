import { Effect } from "effect"
import { once } from "node:events"
import { connect, createServer, type AddressInfo, type Socket } from "node:net"

/** A proxy before PostgreSQL that counts what the server answers. Without TLS, which it could not look into. */
export const postgresMeter = (target: URL) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const sockets: Array<Socket> = []
      const counts = { statements: 0, roundTrips: 0 }
      const server = createServer((client) => {
        const backend = connect(Number(target.port || 5432), target.hostname)
        sockets.push(client, backend)
        for (const socket of [client, backend]) socket.on("error", () => {})
        client.pipe(backend)
        backend.pipe(client)
        // A message: its type, and its length without the type.
        let rest = Buffer.alloc(0)
        let connected = false
        backend.on("data", (data) => {
          rest = Buffer.concat([rest, data])
          while (rest.length >= 5) {
            const end = 1 + rest.readInt32BE(1)
            if (rest.length < end) break
            const type = String.fromCharCode(rest[0]!)
            // CommandComplete, and ReadyForQuery, the first of which ends the start of the connection.
            if (type === "C") counts.statements++
            if (type === "Z" && connected) counts.roundTrips++
            if (type === "Z") connected = true
            rest = rest.subarray(end)
          }
        })
      }).listen(0, "127.0.0.1")
      await once(server, "listening")
      const url = new URL(target)
      url.hostname = "127.0.0.1"
      url.port = String((server.address() as AddressInfo).port)
      return {
        url,
        /** What has come since the last time. */
        take: Effect.sync(() => {
          const taken = { ...counts }
          Object.assign(counts, { statements: 0, roundTrips: 0 })
          return taken
        }),
        close: () => {
          sockets.forEach((socket) => socket.destroy())
          server.close()
        }
      }
    }),
    ({ close }) => Effect.sync(close)
  )
