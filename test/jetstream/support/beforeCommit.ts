import { Effect } from "effect"
import { once } from "node:events"
import { connect, createServer, type AddressInfo, type Socket } from "node:net"

/**
 * A proxy before a server, through which all messages of an atomic batch go but the last, whose header commits it. From
 * then on nothing reaches the server, until the connection is made again.
 */
export const beforeCommit = (server: number) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        let stopped = 0
        let isOn = true
        const sockets = new Set<Socket>()
        const listener = createServer((client) => {
          const upstream = connect(server, "127.0.0.1")
          let rest = ""
          let isStopped = false
          client.on("data", (data) => {
            if (isStopped) return
            rest += data.toString("latin1")
            const commit = isOn ? rest.indexOf("Nats-Batch-Commit") : -1
            // The message that has the header begins before it, perhaps in what came before.
            const last = rest.lastIndexOf("HPUB ", commit < 0 ? Infinity : commit)
            const end = isOn && last >= 0 ? last : rest.length
            upstream.write(rest.slice(0, end), "latin1")
            rest = rest.slice(end)
            if (commit >= 0) {
              isStopped = true
              stopped++
            } else {
              setTimeout(() => {
                if (isStopped) return
                upstream.write(rest, "latin1")
                rest = ""
              }, 100)
            }
          })
          upstream.pipe(client)
          for (const socket of [client, upstream]) {
            sockets.add(socket)
            socket.on("error", () => {})
            socket.on("close", () => {
              client.destroy()
              upstream.destroy()
            })
          }
        }).listen(0, "127.0.0.1")
        await once(listener, "listening")
        return {
          url: `nats://127.0.0.1:${(listener.address() as AddressInfo).port}`,
          /** How many connections have come to a commit. */
          stopped: () => stopped,
          /** From now on everything passes. */
          open: () => {
            isOn = false
          },
          close: () => {
            listener.close()
            for (const socket of sockets) socket.destroy()
          }
        }
      }),
      ({ close }) => Effect.sync(close)
    ),
    ({ open, stopped, url }) => ({ open: Effect.sync(open), stopped: Effect.sync(stopped), url })
  )
