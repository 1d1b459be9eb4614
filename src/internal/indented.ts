/** JSON laid out for people, within bounds: whoever appends decides how a payload is nested. */

/** Brackets deeper than this stay on one line. */
export const deepest = 32

/** Longer texts are not laid out, in characters. */
export const longest = 256 * 1024

/** The longest layout, in characters. A text whose layout would be longer stays unchanged. */
export const longestLayout = 1024 * 1024

const token = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\],:]|[^\s{}[\],:"]+/g

/**
 * Adds line breaks to JSON. Numbers and strings keep their text, unlike with a parser: a version may have more digits
 * than a JavaScript number. Text that is not JSON or exceeds the bounds stays unchanged.
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
