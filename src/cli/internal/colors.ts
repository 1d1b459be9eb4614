/** Whether a stream of this process shows ANSI colors: a terminal does, unless NO_COLOR or TERM=dumb says otherwise. */
export const hasColors = (stream: { readonly isTTY?: boolean }): boolean =>
  stream.isTTY === true && (process.env.NO_COLOR ?? "") === "" && process.env.TERM !== "dumb"

/** Removes ANSI escape sequences. */
export const plain = (text: string): string => text.replace(/\u001b\[[0-9;]*[A-Za-z]/g, "")

const styles = { bold: "1", dim: "2", red: "31", green: "32", yellow: "33", blue: "34" }

/** Styles text for a stream that has colors. */
export const paint =
  (enabled: boolean) =>
  (style: keyof typeof styles, text: string): string =>
    enabled ? `\u001b[${styles[style]}m${text}\u001b[0m` : text
