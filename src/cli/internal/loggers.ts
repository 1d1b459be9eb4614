/**
 * The formats of the log. In each format, one entry is one line. An error is its message and code, in the fields
 * `reason` and `code`. Its stack is logged at the levels debug and trace only.
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as FiberId from "effect/FiberId"
import * as HashMap from "effect/HashMap"
import * as Inspectable from "effect/Inspectable"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import type { LogFormat } from "../LogSettings.js"
import { hasColors, paint } from "./colors.js"
import { escaped, messageOf, oneLine } from "./text.js"

/** The longest reason, in characters. */
const longest = 500

/** Errors and what caused them, outermost first. */
const chain = (error: unknown): ReadonlyArray<unknown> => {
  const found: Array<unknown> = []
  for (let next = error; next !== undefined && next !== null && found.length < 5 && !found.includes(next);) {
    found.push(next)
    next = next instanceof AggregateError ? next.errors[0] : (next as { readonly cause?: unknown }).cause
    if (Cause.isCause(next)) next = Cause.squash(next)
  }
  return found
}

/** The reason of a failure: the messages of the error and its causes, without repetitions. */
export const reasonOf = (error: unknown): string => {
  const said: Array<string> = []
  for (const each of chain(error)) {
    if (typeof each === "object" && !(each instanceof Error)) continue
    const message = messageOf(each)
    if (message !== "" && !said.some((earlier) => earlier.includes(message))) said.push(message)
  }
  const reason = said.join(": ")
  return reason.length > longest ? `${reason.slice(0, longest).toWellFormed()}…` : reason
}

/** The code of an error or of its cause: an SQLSTATE, or a code of the platform such as `ECONNREFUSED`. */
export const codeOf = (error: unknown): string | undefined =>
  chain(error)
    .map((each) => (each as { readonly code?: unknown }).code)
    .find((code): code is string => typeof code === "string" && /^\w+$/.test(code))

interface Entry {
  readonly level: LogLevel.LogLevel
  readonly at: Date
  /** Always one line of text. */
  readonly message: string
  readonly reason: string | undefined
  readonly code: string | undefined
  readonly fields: Readonly<Record<string, unknown>>
  readonly spans: Readonly<Record<string, number>>
  readonly fiber: string
  /** With the stack. Absent above the level debug. */
  readonly cause: string | undefined
}

const isError = (part: unknown): boolean =>
  part instanceof Error || (typeof part === "object" && part !== null && "_tag" in part && "message" in part)

const textOf = (part: unknown): string =>
  oneLine(typeof part === "string" ? part : Inspectable.toStringUnknown(part, 0))

const plainValue = (value: unknown): unknown =>
  typeof value === "bigint" || typeof value === "symbol" || typeof value === "function" ? String(value) : value

const entryOf = (options: Logger.Logger.Options<unknown>, withStacks: boolean): Entry => {
  const parts = Arr.ensure(options.message)
  const error = Cause.isEmpty(options.cause) ? parts.find(isError) : Cause.squash(options.cause)
  const interrupted = Cause.isInterruptedOnly(options.cause) && !Cause.isEmpty(options.cause)
  const message = parts
    .filter((part) => !isError(part))
    .map(textOf)
    .join(" ")
  const reason = error === undefined ? undefined : interrupted ? "interrupted" : reasonOf(error)
  const now = options.date.getTime()
  return {
    level: options.logLevel,
    at: options.date,
    message: message === "" ? (reason ?? "") : message,
    reason: message === "" ? undefined : reason,
    code: error === undefined ? undefined : codeOf(error),
    fields: Object.fromEntries(HashMap.toEntries(HashMap.map(options.annotations, plainValue))),
    spans: Object.fromEntries(Array.from(options.spans, ({ label, startTime }) => [label, now - startTime])),
    fiber: Array.from(FiberId.ids(options.fiberId), (id) => `#${id}`).join(","),
    cause:
      error === undefined || !withStacks
        ? undefined
        : Cause.pretty(Cause.isEmpty(options.cause) ? Cause.fail(error) : options.cause, { renderErrorCause: true })
  }
}

const json = (entry: Entry): string =>
  JSON.stringify({
    message: entry.message,
    logLevel: entry.level.label,
    timestamp: entry.at.toISOString(),
    reason: entry.reason,
    code: entry.code,
    cause: entry.cause,
    annotations: entry.fields,
    spans: entry.spans,
    fiberId: entry.fiber
  })

const quoted = (value: unknown): string => {
  const text = typeof value === "string" ? value : Inspectable.toStringUnknown(value, 0)
  return /^[^\s"=]+$/.test(text) ? text : JSON.stringify(text)
}

const pairs = (fields: Readonly<Record<string, unknown>>): ReadonlyArray<string> =>
  Object.entries(fields).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name.replace(/[\s="]/g, "_")}=${quoted(value)}`]
  )

const logfmt = (entry: Entry): string =>
  pairs({
    timestamp: entry.at.toISOString(),
    level: entry.level.label,
    fiber: entry.fiber,
    message: entry.message,
    reason: entry.reason,
    code: entry.code,
    ...Object.fromEntries(Object.entries(entry.spans).map(([label, millis]) => [label, `${millis}ms`])),
    ...entry.fields,
    cause: entry.cause
  }).join(" ")

const colorOf = (level: LogLevel.LogLevel) =>
  LogLevel.greaterThanEqual(level, LogLevel.Error)
    ? "red"
    : LogLevel.greaterThanEqual(level, LogLevel.Warning)
      ? "yellow"
      : LogLevel.greaterThanEqual(level, LogLevel.Info)
        ? "green"
        : "blue"

const pretty =
  (colors: boolean) =>
  (entry: Entry): string => {
    const style = paint(colors)
    const code = entry.code === undefined ? "" : ` (${entry.code})`
    const text = entry.reason === undefined ? `${entry.message}${code}` : `${entry.message}: ${entry.reason}${code}`
    return [
      style("dim", entry.at.toTimeString().slice(0, 8)),
      style(colorOf(entry.level), entry.level.label.padEnd(5)),
      escaped(text),
      ...pairs(entry.fields).map((pair) => style("dim", escaped(pair))),
      ...(entry.cause === undefined ? [] : [`\n${escaped(entry.cause)}`])
    ].join(" ")
  }

/** Logs to stderr: stdout is for the output of commands. */
export const make = (format: LogFormat, level: LogLevel.LogLevel): Logger.Logger<unknown, void> => {
  const withStacks = LogLevel.lessThanEqual(level, LogLevel.Debug)
  const render = format === "pretty" ? pretty(hasColors(process.stderr)) : format === "json" ? json : logfmt
  // The pretty format has escaped everything but its own colors.
  const safe = format === "pretty" ? (text: string) => text : escaped
  return Logger.withConsoleError(Logger.make((options) => safe(render(entryOf(options, withStacks)))))
}
