import * as Either from "effect/Either"
import { createHash } from "node:crypto"
import type { OutboundEvent } from "../../Sink.js"

/** Where an event is published to. */
export interface Template {
  readonly subjectOf: (event: OutboundEvent) => string
  /** The subjects it makes, as a NATS wildcard. */
  readonly pattern: string
}

/** The longest subject, in characters. A server reads at most 4,096 bytes of a protocol line. */
export const maxLength = 2_000

const isPlain = (value: string) => /^[\w-]+$/.test(value)

/** `value` as one token. Characters other than letters, digits, `_` and `-` are percent-encoded; no text is `-`. */
const token = (value: string | undefined): string => {
  if (value === undefined || value === "") return "-"
  if (isPlain(value)) return value
  // A lone surrogate is valid in JSON, but `encodeURIComponent` throws on it.
  return encodeURIComponent(Buffer.from(value).toString()).replaceAll(
    /[.!~*'()]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`
  )
}

/** One token for each part between dots, so that `stack.activated` can be subscribed to as `stack.*`. */
const tokens = (value: string): string => {
  if (/^[\w-]+(\.[\w-]+)*$/.test(value)) return value
  const parts = value.split(".")
  return parts.includes("") ? token(value) : parts.map(token).join(".")
}

/** Short for any id, and distinct for distinct ids up to the hash. */
const idToken = (eventId: string): string =>
  eventId.length <= 64 && isPlain(eventId) ? eventId : `%${createHash("sha256").update(eventId).digest("hex")}`

const fields: Readonly<
  Record<string, { readonly wildcard: "*" | ">"; readonly of: (event: OutboundEvent) => string }>
> = {
  type: { wildcard: ">", of: ({ event }) => tokens(event.type) },
  tenant_id: { wildcard: "*", of: ({ event }) => token(event.tenant_id) },
  stack_id: { wildcard: "*", of: ({ event }) => token(event.stack_id) },
  event_id: { wildcard: "*", of: ({ eventId }) => idToken(eventId) },
  ordering_key: { wildcard: "*", of: ({ orderingKey }) => token(orderingKey) }
}

const placeholder = /\{([^{}]*)\}/g

const isSubject = (subject: string) => /^[^\s.*>{}]+(\.[^\s.*>{}]+)*$/.test(subject)

/** The wildcard for a template's token. */
const wildcardOf = (part: string): string => {
  const names = Array.from(part.matchAll(placeholder), (match) => match[1]!)
  if (names.length === 0) return part
  return names.some((name) => fields[name]?.wildcard === ">") ? ">" : "*"
}

/** Parses a template such as `control.events.{type}`. A `Left` is the reason why it is invalid. */
export const parse = (text: string): Either.Either<Template, string> => {
  for (const [, name] of text.matchAll(placeholder)) {
    if (!Object.hasOwn(fields, name!)) {
      return Either.left(
        `{${name}} is not one of ${Object.keys(fields)
          .map((known) => `{${known}}`)
          .join(", ")}`
      )
    }
  }
  if (!isSubject(text.replaceAll(placeholder, "x"))) {
    return Either.left("a subject is a list of tokens separated by dots, without spaces, * and >")
  }
  // Compiled: literals and fields in turn.
  const pieces = text.split(placeholder).map((piece, index) => (index % 2 === 0 ? piece : fields[piece]!.of))
  const wildcards = text.split(".").map(wildcardOf)
  const end = wildcards.indexOf(">")
  return Either.right({
    pattern: (end < 0 ? wildcards : wildcards.slice(0, end + 1)).join("."),
    subjectOf: (event) => {
      let subject = ""
      for (const piece of pieces) subject += typeof piece === "string" ? piece : piece(event)
      return subject
    }
  })
}

/** Whether `filter` matches every subject that `pattern` matches. Both may have wildcards. */
export const covers = (filter: string, pattern: string): boolean => {
  const wide = filter.split(".")
  const narrow = pattern.split(".")
  for (const [index, part] of wide.entries()) {
    const other = narrow[index]
    if (part === ">") return other !== undefined
    if (other === undefined || other === ">" || (part !== "*" && part !== other)) return false
  }
  return wide.length === narrow.length
}

/** Whether some subject matches both. */
export const overlaps = (one: string, other: string): boolean => {
  const left = one.split(".")
  const right = other.split(".")
  for (let index = 0; ; index++) {
    const [a, b] = [left[index], right[index]]
    if (a === undefined || b === undefined) return a === b
    if (a === ">" || b === ">") return true
    if (a !== "*" && b !== "*" && a !== b) return false
  }
}

/** Whether one of the filters covers a subject or a wildcard. */
export const coveredBy = (filters: ReadonlyArray<string>, pattern: string): boolean =>
  filters.some((filter) => covers(filter, pattern))
