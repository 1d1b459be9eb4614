/** Sends payloads as downloads, so that no browser renders one as a page. */
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import type { Payload } from "../../OutboxAdmin.js"

const longestName = 100

/** A file name that is valid on every file system. */
const fileName = (eventId: string): string => `${eventId.replace(/[^\w.-]/g, "_").slice(0, longestName)}.json`

/** A failure halfway breaks the connection, so that a client notices that the file is incomplete. */
export const answer = (eventId: string, { pieces }: Payload): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.stream(pieces, {
    contentType: "application/json",
    headers: {
      "content-disposition": `attachment; filename="${fileName(eventId)}"`,
      "content-security-policy": "sandbox; default-src 'none'"
    }
  })
