import * as Schema from "effect/Schema"

/** What PostgreSQL's `text` can hold unchanged: no NUL, no lone surrogate. */
export const isStorable = (value: string): boolean => !value.includes("\u0000") && value.isWellFormed()

/** A string that every store keeps unchanged. */
export const Text = Schema.String.pipe(
  Schema.filter(isStorable, { message: () => "must be text without NUL characters and lone surrogates" })
).annotations({ message: () => ({ message: "must be a string", override: false }) })

/** At most `max` characters of `value`, safe to store as text. */
export const truncate = (value: string, max: number): string => {
  const storable = value.replaceAll("\u0000", "").toWellFormed()
  return storable.length <= max ? storable : Array.from(storable).slice(0, max).join("")
}
