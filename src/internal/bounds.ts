/**
 * The longest values that an outbox takes, in UTF-8 bytes. The tables enforce them for rows of every origin.
 *
 * An id must fit into an entry of a PostgreSQL index. The others are far above what is in use, and far below what would
 * hurt a pump, a page of events or a broker.
 */
export const textBytes = {
  event_id: 1024,
  event_type: 1024,
  tenant_id: 1024,
  stack_id: 1024,
  artifact_ref: 4096,
  checksum: 128,
  ordering_key: 1024,
  traceparent: 512
} as const

/** The default limit of a payload in bytes. */
export const payloadBytes = 8 * 1024 * 1024

/**
 * The largest limit of a payload in bytes: a driver's string, a pump's batch and six concurrent reads still fit into
 * memory.
 */
export const largestPayloadBytes = 128 * 1024 * 1024

/** Why a payload is too large. */
export const payloadReason = (bytes: number | string, limit: number | string): string =>
  `the payload has ${bytes} bytes, the maximum is ${limit}`

/** Why an outbox with the default limit rejects a payload. `undefined` if it does not. */
export const refusedPayload = (payload: string): string | undefined => {
  const bytes = Buffer.byteLength(payload)
  return bytes > payloadBytes ? payloadReason(bytes, payloadBytes) : undefined
}

/** A payload as a claim returns it: empty if it is rejected. */
export const withoutRefused = (payload: string): { readonly payload: string; readonly refused?: string } => {
  const refused = refusedPayload(payload)
  return refused === undefined ? { payload } : { payload: "", refused }
}

/** Why the first rejected row of an append is rejected. */
export const firstRefused = (rows: ReadonlyArray<{ readonly payload: string }>): string | undefined => {
  const reason = rows.map(({ payload }) => refusedPayload(payload)).find((found) => found !== undefined)
  return reason === undefined ? undefined : `Could not append to the outbox: ${reason}`
}

/** Of a larger payload, readers get only the first characters. */
export const shownPayloadBytes = 1024 * 1024
export const shownCharacters = 256 * 1024

/** Characters that are shown of a text that is longer than an outbox takes. */
export const cutCharacters = 200

type Shown = "eventId" | "type" | "tenantId" | "stackId" | "orderingKey"

/** The columns of texts that lists show. */
export const shownColumns: Readonly<Record<Shown, keyof typeof textBytes>> = {
  eventId: "event_id",
  type: "event_type",
  tenantId: "tenant_id",
  stackId: "stack_id",
  orderingKey: "ordering_key"
}

/** A summary whose texts are no longer than an outbox takes, and the names of those that were. */
export const cutTexts = <A extends { readonly [name in Shown]?: string | undefined }>(
  summary: A
): A & { readonly cut?: ReadonlyArray<string> } => {
  const texts = (Object.keys(shownColumns) as ReadonlyArray<Shown>).flatMap((name) => {
    const text = summary[name]
    return text !== undefined && Buffer.byteLength(text) > textBytes[shownColumns[name]]
      ? [
          [
            name,
            `${Array.from(text.slice(0, 2 * cutCharacters))
              .slice(0, cutCharacters)
              .join("")}…`
          ] as const
        ]
      : []
  })
  return texts.length === 0 ? summary : { ...summary, ...Object.fromEntries(texts), cut: texts.map(([name]) => name) }
}

/** A payload as it is shown. */
export const shownPayload = (
  payload: string
): { readonly payload: string; readonly payloadBytes: number; readonly payloadCut?: true } => {
  const payloadBytes = Buffer.byteLength(payload)
  return payloadBytes > shownPayloadBytes
    ? { payload: payload.slice(0, shownCharacters).toWellFormed(), payloadBytes, payloadCut: true }
    : { payload, payloadBytes }
}
