/** Text from outside, made fit for one line of a log, an error or a terminal. */

const longest = 100

/** Removes the credentials from anything that looks like a URL, even an invalid one. */
export const discreet = (text: string): string => text.replace(/:\/\/\S*@/g, "://***@")

/** Replaces line breaks, control characters and marks that change the direction of text. */
export const oneLine = (text: string): string =>
  text
    .replace(/\s+/g, " ")
    .replace(/[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\u{fffd}")
    .trim()

/** Quotes a given text for an error message. */
export const quote = (text: string): string => {
  const line = oneLine(discreet(text))
  return JSON.stringify(line.length > longest ? `${line.slice(0, longest).toWellFormed()}…` : line)
}

/** Finds the first message that is not empty, in an error and what caused it. */
export const messageOf = (error: unknown): string => {
  // Node's error for a host whose addresses all failed has no message of its own.
  if (error instanceof AggregateError && error.message === "") return messageOf(error.errors[0])
  return oneLine(discreet(error instanceof Error && error.message !== "" ? error.message : String(error)))
}
