/** JSON laid out for people, within bounds: whoever appends decides how a payload is nested. */

/** Brackets deeper than this are not laid out: what is in them stays on one line. */
export const deepest = 32

/** Longer texts are not laid out, in characters. */
export const longest = 256 * 1024

/** A layout is at most so long; where it would be longer, the text stays as it is. */
export const longestLayout = 1024 * 1024

const token = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\],:]|[^\s{}[\],:"]+/g

/**
 * JSON with line breaks. Numbers and strings stay as they are written, which a parser would not leave them: a version may
 * have more digits than a number of this language. What is not JSON, and what is beyond the bounds, stays as it is.
 */
export const indented = (json: string): string => {
  if (json.length > longest) return json
  try {
    JSON.parse(json)
  } catch {
    return json
  }
  let depth = 0
  let text = ""
  let before = ""
  const line = (): string => (depth > deepest ? "" : `\n${"  ".repeat(depth)}`)
  for (const [part] of json.matchAll(token)) {
    const opened = before === "{" || before === "["
    if (part === "}" || part === "]") {
      const end = depth > deepest ? "" : `\n${"  ".repeat(depth - 1)}`
      depth--
      text += opened ? part : end + part
    } else {
      if (opened || before === ",") text += line()
      text += part === ":" ? ": " : part
      if (part === "{" || part === "[") depth++
    }
    if (text.length > longestLayout) return json
    before = part
  }
  return text
}
