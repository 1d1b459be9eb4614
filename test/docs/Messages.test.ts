import { assert, it } from "@effect/vitest"
import { readdirSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { textOf } from "./links.js"

const src = fileURLToPath(new URL("../../src/", import.meta.url))

const source = readdirSync(src, { recursive: true, encoding: "utf8" })
  .filter((path) => /\.tsx?$/.test(path))
  .map((path) => readFileSync(src + path, "utf8"))
  .join("\n")
  .replaceAll('\\"', '"')

/** Messages that are not ours, or that the source composes of parts. */
const others = [
  "canceling statement due to statement timeout (57014)",
  "canceling statement due to lock timeout (55P03)",
  "Could not connect to the database",
  "Could not query the outbox",
  "is in use by process",
  "Not all could be done within 30s",
  "ADMIN_TOKEN: is missing, while ADMIN_HOST is"
]

/** The constant parts of the messages that begin the items of a page. */
const partsOf = (page: string): ReadonlyArray<string> =>
  Array.from(textOf(page).matchAll(/^- ((?:`[^`]*`(?:,\s+|\s+or\s+)?)+)/gm), ([, messages = ""]) => messages)
    .flatMap((messages) => Array.from(messages.matchAll(/`([^`]*)`/g), ([, message = ""]) => message))
    .flatMap((message) => message.replace(/\s+/g, " ").split(/…|<[^>]*>/))
    .map((part) => part.replace(/^[\s":;,.()]+|[\s":;,.()]+$/g, ""))
    .filter((part) => part.length >= 8)

it("docs/messages.md has messages as the source has them", () => {
  const parts = partsOf("docs/messages.md")
  assert.isAbove(parts.length, 40)
  assert.deepStrictEqual(
    parts.filter((part) => !source.includes(part) && !others.some((other) => other.includes(part))),
    []
  )
})
