/** Finds what a round trip through JavaScript's JSON would silently change: numbers, and duplicate fields. */
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
  // A double holds up to 15 digits exactly.
  /^-?\d{1,15}$/.test(text) || (Number.isFinite(Number(text)) && normalized(text) === normalized(String(Number(text))))

/** The reason why a round trip would change the text, which must be valid JSON; `undefined` if it would not. */
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
          return `has the number ${quote(token)}, which JavaScript cannot represent exactly: write it as a string`
        }
    }
    before = token
  }
  return undefined
}
