/** Payloads as files: whatever an event holds, no browser takes it for a page. */
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import type { Payload } from "../../OutboxAdmin.js"

const longestName = 100

/** A name that every file system takes. */
const fileName = (eventId: string): string => `${eventId.replace(/[^\w.-]/g, "_").slice(0, longestName)}.json`

/** A payload that fails half way breaks the connection, so that nobody takes the half for the whole. */
export const answer = (eventId: string, { pieces }: Payload): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.stream(pieces, {
    contentType: "application/json",
    headers: {
      "content-disposition": `attachment; filename="${fileName(eventId)}"`,
      "content-security-policy": "sandbox; default-src 'none'"
    }
  })
