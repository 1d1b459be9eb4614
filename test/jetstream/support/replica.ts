import { Effect } from "effect"
import { once } from "node:events"
import { connect, createServer, type AddressInfo, type Socket } from "node:net"

/**
 * A proxy before a server behind which consumers of a stream read another one, as they do when they are placed on a
 * replica that is catching up; all else, the leader answers. Both names have the same length, as the protocol counts bytes.
 */
export const replica = (server: number, stream: string, copy: string) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        let isBehind = true
        const sockets = new Set<Socket>()
        const toCopy = (text: string) =>
          text
            .replaceAll(new RegExp(`(CONSUMER\\.(?:CREATE|INFO|DELETE|MSG\\.NEXT))\\.${stream}\\.`, "g"), `$1.${copy}.`)
            .replaceAll(`"stream_name":"${stream}"`, `"stream_name":"${copy}"`)
        const listener = createServer((client) => {
          const upstream = connect(server, "127.0.0.1")
          let rest = ""
          client.on("data", (data) => {
            const text = rest + data.toString("latin1")
            // Lines as a whole, and payloads, which end as lines do.
            const end = text.lastIndexOf("\r\n") + 2
            rest = end < 2 ? text : text.slice(end)
            if (end >= 2) upstream.write(isBehind ? toCopy(text.slice(0, end)) : text.slice(0, end), "latin1")
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
          /** From now on, consumers read the stream itself. */
          caughtUp: () => {
            isBehind = false
          },
          close: () => {
            listener.close()
            for (const socket of sockets) socket.destroy()
          }
        }
      }),
      ({ close }) => Effect.sync(close)
    ),
    ({ caughtUp, url }) => ({ caughtUp: Effect.sync(caughtUp), url })
  )
