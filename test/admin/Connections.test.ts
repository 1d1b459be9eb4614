import { assert, describe, it } from "@effect/vitest"
import { EventEmitter } from "node:events"
import type { IncomingMessage, ServerResponse } from "node:http"
import type { Socket } from "node:net"
import * as Connections from "../../src/admin/internal/connections.js"

const limits: Connections.Limits = { total: 4, ofAddress: 2, reserve: 1, pipelined: 2 }

const setUp = (isExempt: (address: string) => boolean = () => false) => {
  const connections = Connections.make(limits, isExempt)
  let ports = 0
  const open = (remoteAddress: string) => {
    const socket = Object.assign(new EventEmitter(), {
      remoteAddress,
      remotePort: ++ports,
      destroyed: false,
      destroy: () => {
        socket.destroyed = true
        socket.emit("close")
      }
    })
    connections.accept(socket as unknown as Socket)
    return socket
  }
  const ask = (socket: ReturnType<typeof open>, url: string, complete = true) => {
    const response = new EventEmitter()
    const request = { socket, url, complete } as unknown as IncomingMessage
    return {
      refused: connections.begin(request, response as unknown as ServerResponse),
      end: () => void response.emit("close")
    }
  }
  return { connections, open, ask }
}

describe("Connections", () => {
  it("replaces the connection of an address that waits for nothing and was used longest ago", () => {
    const { ask, open } = setUp()
    const [first, second] = [open("10.0.0.1"), open("10.0.0.1")]
    ask(first, "/api/status").end()
    const third = open("10.0.0.1")
    assert.deepStrictEqual(
      [first, second, third].map(({ destroyed }) => destroyed),
      [false, true, false]
    )
  })

  it("counts a network of IPv6 as one address, and IPv4 written as IPv6 as what it is", () => {
    const { open } = setUp()
    const network = [open("2001:db8::1"), open("2001:db8:0:0:ffff::2"), open("2001:db8::3")]
    assert.deepStrictEqual(
      network.map(({ destroyed }) => destroyed),
      [true, false, false]
    )
    const mapped = [open("::ffff:10.0.0.1"), open("10.0.0.1"), open("::ffff:10.0.0.1")]
    assert.isTrue(mapped[0]!.destroyed)
  })

  it("takes the place from the address that has most of them where all are taken", () => {
    const { open } = setUp(() => true)
    const many = [open("10.0.0.1"), open("10.0.0.1"), open("10.0.0.1")]
    const one = open("10.0.0.2")
    const other = open("10.0.0.3")
    assert.deepStrictEqual(
      [...many, one, other].map(({ destroyed }) => destroyed),
      [true, false, false, false, false]
    )
  })

  it("replaces a request whose rest does not come, and none that waits for its answer", () => {
    const { ask, open } = setUp()
    const [slow, waiting] = [open("10.0.0.1"), open("10.0.0.1")]
    ask(slow, "/api/pump/pause", false)
    ask(waiting, "/api/events")
    open("10.0.0.1")
    assert.deepStrictEqual([slow.destroyed, waiting.destroyed], [true, false])
  })

  it("answers health and metrics on the reserve, and nothing else", () => {
    const { ask, open } = setUp()
    for (const address of ["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2"]) ask(open(address), "/api/events")
    const spare = open("10.0.0.3")
    assert.isUndefined(ask(spare, "/health/live").refused)
    assert.isUndefined(ask(spare, "/metrics").refused)
    // Nobody is left to make room.
    assert.isTrue(open("10.0.0.3").destroyed)
    spare.destroy()
    const again = open("10.0.0.3")
    assert.strictEqual(ask(again, "/api/events").refused, "busy")
    assert.strictEqual(ask(again, "/healthy").refused, "busy")
  })

  it("lets a connection have so many requests at once", () => {
    const { ask, open } = setUp()
    const socket = open("10.0.0.1")
    const first = ask(socket, "/api/status")
    assert.deepStrictEqual([ask(socket, "/a").refused, ask(socket, "/b").refused], [undefined, "pipelined"])
    first.end()
  })

  it("listens to the errors of every socket, also of one that it closes", () => {
    const { open } = setUp()
    const sockets = ["10.0.0.1", "10.0.0.1", "10.0.0.1"].map(open)
    for (const socket of sockets) assert.doesNotThrow(() => socket.emit("error", new Error("reset")))
  })
})
