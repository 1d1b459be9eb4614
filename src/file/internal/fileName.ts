import { createHash } from "node:crypto"
import { largestPayloadBytes } from "../../internal/bounds.js"

/** The largest event file in bytes: the largest possible limit of payloads, and the version. */
export const maxEventBytes = largestPayloadBytes + 1024

/** The longest encoded id in bytes: with room for the extension below the 255 that file systems take. */
const maxLength = 200

const percent = (text: string): string =>
  Array.from(Buffer.from(text), (byte) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`).join("")

// Upper case too, so that names differ on file systems that ignore case.
const unsafe = /[^a-z0-9_.-]|^\.|\.$/gu

// Names of devices on Windows, with any extension.
const device = /^(?:con|prn|aux|nul|com\d|lpt\d)(?=\.|$)/

/**
 * The name of an event's file. Two ids never share one, on any file system. `a-z`, `0-9`, `_`, `-` and inner dots stand
 * for themselves; every other byte of the id's UTF-8 is `%` and two digits. If that is too long, the name is a hash of
 * the id with a prefix that no encoded id can have.
 */
export const fileName = (eventId: string): string => {
  const encoded = eventId.replace(unsafe, percent).replace(device, (name) => percent(name[0]!) + name.slice(1))
  const stem = encoded.length <= maxLength ? encoded : `sha256=${createHash("sha256").update(eventId).digest("hex")}`
  return `${stem}.json`
}

/** Whether a name is that of an event's file. Every other file in the directory starts with a dot. */
export const isEventFile = (name: string): boolean => name.endsWith(".json") && !name.startsWith(".")
