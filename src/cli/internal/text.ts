export { discreet, messageOf, oneLine, quote } from "../../internal/printable.js"

/** Escapes control characters and marks that turn the direction of text, as JSON does; line breaks stay. */
export const escaped = (text: string): string =>
  text.replace(
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`
  )

/** `1 event`, `2 events`. */
export const count = (value: number, noun: string): string => `${value} ${noun}${value === 1 ? "" : "s"}`
