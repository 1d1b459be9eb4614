/** Finds what a round trip through JavaScript's JSON would change without a word: numbers and fields that are given twice. */
import { quote } from "./text.js"

const tokens = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|[{}[\]:]/g

/** A number as its significant digits and exponent, however it is written. */
const normalized = (text: string): string => {
  const [, whole = "", fraction = "", exponent = "0"] = /^-?(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text) ?? []
  const digits = `${whole}${fraction}`.replace(/^0+/, "")
  const significant = digits.replace(/0+$/, "")
  if (significant === "") return "0"
  const scale = Number(exponent) - fraction.length + (digits.length - significant.length)
  return `${significant}e${scale}`
}

const isKept = (text: string): boolean =>
  // Up to 15 digits a double has them all.
  /^-?\d{1,15}$/.test(text) || (Number.isFinite(Number(text)) && normalized(text) === normalized(String(Number(text))))

/** Why the text would not be kept, which must be valid JSON. Nothing where it is. */
export const whyChanged = (text: string): string | undefined => {
  const objects: Array<Set<string> | undefined> = []
  let before = ""
  for (const [token] of text.matchAll(tokens)) {
    switch (token[0]) {
      case "{":
        objects.push(new Set())
        break
      case "[":
        objects.push(undefined)
        break
      case "}":
      case "]":
        objects.pop()
        break
      case ":": {
        const name = JSON.parse(before) as string
        const names = objects.at(-1)
        if (names?.has(name) === true) return `has the field ${quote(name)} twice`
        names?.add(name)
        break
      }
      case '"':
        break
      default:
        if (!isKept(token)) {
          return `has the number ${quote(token)}, which a JSON number of JavaScript cannot hold: give it as text`
        }
    }
    before = token
  }
  return undefined
}
