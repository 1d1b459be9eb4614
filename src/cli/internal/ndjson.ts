/** Lines of text from chunks of bytes, in bounded memory. */
import * as Either from "effect/Either"

export interface Line {
  /** From 1, blank lines counted. */
  readonly number: number
  /** The text, or the reason why it is invalid. An invalid line is the last one. */
  readonly text: Either.Either<string, string>
  /** Including the line feed. */
  readonly bytes: number
}

export interface Splitter {
  /** The lines that end in the chunk. */
  readonly push: (chunk: Uint8Array) => ReadonlyArray<Line>
  /** The rest after the last line feed. */
  readonly end: () => ReadonlyArray<Line>
}

const lineFeed = 10

/** Splits at line feeds. A line of more than `maxBytes` is an error and is not kept. */
export const make = (maxBytes: number): Splitter => {
  const decoder = new TextDecoder("utf-8", { fatal: true })
  let number = 0
  let rest: Array<Uint8Array> = []
  let restBytes = 0
  let ended = false

  const decode = (bytes: Uint8Array): Either.Either<string, string> =>
    Either.try({ try: () => decoder.decode(bytes), catch: () => "must be UTF-8" })

  const take = (bytes: Uint8Array): Line => {
    number++
    const whole = restBytes === 0 ? bytes : Buffer.concat([...rest, bytes])
    rest = []
    restBytes = 0
    const text = whole.length > maxBytes ? Either.left(`is longer than ${maxBytes} bytes`) : decode(whole)
    ended = Either.isLeft(text)
    return { number, text, bytes: whole.length + 1 }
  }

  return {
    push: (chunk) => {
      const lines: Array<Line> = []
      let from = 0
      while (!ended) {
        const to = chunk.indexOf(lineFeed, from)
        if (to === -1) {
          rest.push(chunk.subarray(from))
          restBytes += chunk.length - from
          if (restBytes > maxBytes) lines.push(take(new Uint8Array(0)))
          return lines
        }
        lines.push(take(chunk.subarray(from, to)))
        from = to + 1
      }
      return lines
    },
    end: () => (ended || restBytes === 0 ? [] : [take(new Uint8Array(0))])
  }
}
