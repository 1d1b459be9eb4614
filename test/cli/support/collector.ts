/** A collector of OpenTelemetry, as far as spans and the names of metrics go: OTLP over HTTP, in protobuf. */
import { Effect } from "effect"
import { once } from "node:events"
import { createServer, type IncomingHttpHeaders } from "node:http"
import type { AddressInfo } from "node:net"

type Field = readonly [number: number, value: Buffer | bigint]

const varint = (buffer: Buffer, at: number): readonly [value: bigint, next: number] => {
  let value = 0n
  for (let shift = 0n; ; shift += 7n) {
    const byte = BigInt(buffer[at++]!)
    value |= (byte & 127n) << shift
    if (byte < 128n) return [value, at]
  }
}

const fieldsOf = (buffer: Buffer): ReadonlyArray<Field> => {
  const found: Array<Field> = []
  let at = 0
  while (at < buffer.length) {
    let key: bigint
    ;[key, at] = varint(buffer, at)
    const [number, wire] = [Number(key >> 3n), Number(key & 7n)]
    if (wire === 0) {
      let value: bigint
      ;[value, at] = varint(buffer, at)
      found.push([number, value])
    } else {
      let length = wire === 1 ? 8 : 4
      if (wire === 2) {
        let value: bigint
        ;[value, at] = varint(buffer, at)
        length = Number(value)
      }
      found.push([number, buffer.subarray(at, at + length)])
      at += length
    }
  }
  return found
}

/** The messages in a field, or in fields of fields. */
const all = (buffer: Buffer, ...path: ReadonlyArray<number>): ReadonlyArray<Buffer> =>
  path.reduce<ReadonlyArray<Buffer>>(
    (buffers, number) =>
      buffers.flatMap((buffer) =>
        fieldsOf(buffer).flatMap(([field, value]) => (field === number && Buffer.isBuffer(value) ? [value] : []))
      ),
    [buffer]
  )

const text = (buffer: Buffer, number: number) => all(buffer, number)[0]?.toString() ?? ""

const hex = (buffer: Buffer, number: number) => all(buffer, number)[0]?.toString("hex") ?? ""

/** Attributes that are texts or integers. */
const attributesOf = (buffer: Buffer, number: number): Record<string, string> =>
  Object.fromEntries(
    all(buffer, number).map((attribute) => {
      const [value] = fieldsOf(all(attribute, 2)[0] ?? Buffer.alloc(0))
      return [text(attribute, 1), String(value?.[1] ?? "")]
    })
  )

export interface CollectedSpan {
  readonly name: string
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId: string
  readonly attributes: Record<string, string>
  readonly links: ReadonlyArray<{ readonly traceId: string; readonly spanId: string }>
  /** Attributes of the process that it comes from. */
  readonly resource: Record<string, string>
}

const spansOf = (body: Buffer): ReadonlyArray<CollectedSpan> =>
  all(body, 1).flatMap((resourceSpans) =>
    all(resourceSpans, 2, 2).map((span) => ({
      name: text(span, 5),
      traceId: hex(span, 1),
      spanId: hex(span, 2),
      parentSpanId: hex(span, 4),
      attributes: attributesOf(span, 9),
      links: all(span, 13).map((link) => ({ traceId: hex(link, 1), spanId: hex(link, 2) })),
      resource: attributesOf(all(resourceSpans, 1)[0]!, 1)
    }))
  )

/** A collector that lives as long as the scope. */
export const collector = Effect.acquireRelease(
  Effect.promise(async () => {
    const requests: Array<{ readonly path: string; readonly headers: IncomingHttpHeaders; readonly body: Buffer }> = []
    const server = createServer((request, response) => {
      const chunks: Array<Buffer> = []
      request.on("data", (chunk: Buffer) => chunks.push(chunk))
      request.on("end", () => {
        requests.push({ path: request.url ?? "", headers: request.headers, body: Buffer.concat(chunks) })
        response.writeHead(200, { "content-type": "application/x-protobuf" }).end()
      })
    })
    server.listen(0, "127.0.0.1")
    await once(server, "listening")
    const at = (path: string) => requests.filter((request) => request.path === path)
    return {
      url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
      requests: () => requests,
      spans: () => at("/v1/traces").flatMap(({ body }) => spansOf(body)),
      metrics: () =>
        new Set(at("/v1/metrics").flatMap(({ body }) => all(body, 1, 2, 2).map((metric) => text(metric, 1)))),
      close: () => {
        server.closeAllConnections()
        server.close()
      }
    }
  }),
  ({ close }) => Effect.sync(close)
)
