/** Tables for terminals. */
import Table from "cli-table3"
import { oneLine } from "./text.js"

const frame = [
  "top",
  "top-mid",
  "top-left",
  "top-right",
  "bottom",
  "bottom-mid",
  "bottom-left",
  "bottom-right",
  "left",
  "left-mid",
  "mid",
  "mid-mid",
  "right",
  "right-mid"
]

/** The longest cell, in characters. `show` and `--json` print the whole text. */
const longest = 80

const cell = (text: string): string => {
  const line = oneLine(text)
  return line.length > longest ? `${line.slice(0, longest).toWellFormed()}…` : line
}

/** Columns with their names, separated by two spaces, without a frame. */
export const render = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const table = new Table({
    head: [...head],
    chars: { ...Object.fromEntries(frame.map((name) => [name, ""])), middle: "  " },
    style: { head: [], border: [], "padding-left": 0, "padding-right": 0 }
  })
  table.push(...rows.map((row) => row.map(cell)))
  return table
    .toString()
    .split("\n")
    .map((line) => line.trimEnd())
    .join("\n")
}
