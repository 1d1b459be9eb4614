/** Text from outside, made fit for one line of a terminal. */

const longest = 100

/** Without the credentials of anything that looks like a URL, also of one that is none for its special characters. */
export const discreet = (text: string): string => text.replace(/:\/\/\S*@/g, "://***@")

/** Without control characters, line breaks and marks that turn the direction of text. */
export const oneLine = (text: string): string =>
  text
    .replace(/\s+/g, " ")
    .replace(/[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\u{fffd}")
    .trim()

/** Text of several lines, or JSON, whose control characters and marks that turn the direction of text are escaped as in JSON. */
export const escaped = (text: string): string =>
  text.replace(
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`
  )

/** What was given, in quotes, for an error. */
export const quote = (text: string): string => {
  const line = oneLine(discreet(text))
  return JSON.stringify(line.length > longest ? `${line.slice(0, longest).toWellFormed()}…` : line)
}

/** `1 event`, `2 events`. */
export const count = (value: number, noun: string): string => `${value} ${noun}${value === 1 ? "" : "s"}`

/** The first message that says something, from an error and what caused it. */
export const messageOf = (error: unknown): string => {
  // What Node reports when it tried several addresses of a host has no message of its own.
  if (error instanceof AggregateError && error.message === "") return messageOf(error.errors[0])
  return oneLine(discreet(error instanceof Error && error.message !== "" ? error.message : String(error)))
}
