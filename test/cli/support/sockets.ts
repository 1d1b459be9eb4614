/** Bytes on a connection, as no HTTP client would send them. */
import { Effect } from "effect"
import * as Net from "node:net"

export interface Raw {
  /** Written one after another. */
  readonly parts: ReadonlyArray<string | Buffer>
  /** Milliseconds between the parts. */
  readonly pause?: number
  /** How the connection ends, `after` milliseconds after the last part: by a reset, a half close, or as the server does. */
  readonly end: "reset" | "finish" | "wait"
  readonly after?: number
}

const sleep = (millis: number) => new Promise<void>((resolve) => setTimeout(resolve, millis))

/**
 * Sends it, and answers what came back until the connection was closed, or what came matches, `patience` milliseconds at
 * most.
 */
export const raw = (
  port: number,
  { after = 0, end, parts, pause = 0 }: Raw,
  patience = 3_000,
  expected?: RegExp
): Effect.Effect<string> =>
  Effect.promise(async () => {
    const socket = Net.connect({ host: "127.0.0.1", port })
    let text = ""
    const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()))
    // What the server resets is an answer, too.
    socket.on("error", () => {})
    const matched = new Promise<void>((resolve) => {
      socket.setEncoding("latin1").on("data", (chunk: string) => {
        text += chunk
        if (expected?.test(text) === true) resolve()
      })
    })
    for (const [index, part] of parts.entries()) {
      if (index > 0) await sleep(pause)
      if (!socket.destroyed) socket.write(part)
    }
    await sleep(after)
    if (end === "reset") socket.resetAndDestroy()
    if (end === "finish") socket.end()
    await Promise.race([closed, matched, sleep(patience)])
    socket.destroy()
    return text
  })

/** Connections that say nothing, or this, for as long as the scope. Answers how many are open now. */
export const hold = (port: number, count: number, text = "") =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(() =>
        Promise.all(
          Array.from(
            { length: count },
            () =>
              new Promise<Net.Socket>((resolve) => {
                const socket = Net.connect({ host: "127.0.0.1", port })
                socket.resume().on("error", () => resolve(socket))
                socket.once("connect", () => {
                  if (text !== "") socket.write(text)
                  resolve(socket)
                })
              })
          )
        )
      ),
      (sockets) => Effect.sync(() => sockets.forEach((socket) => socket.destroy()))
    ),
    (sockets) => ({ open: () => sockets.filter((socket) => !socket.destroyed && !socket.readableEnded).length })
  )
