/**
 * Declarations of settings: the environment variable, the flag, the default and the rule for valid values.
 *
 * Each part of the package declares its own settings. The command line derives its flags and the reference page from
 * these declarations; a program reads them with {@link read} from the current `ConfigProvider`.
 *
 * @example
 * ```ts
 * import { Setting } from "controlpublish"
 *
 * const attempts = Setting.make({
 *   env: "HTTP_SINK_ATTEMPTS",
 *   flag: "attempts",
 *   description: "How often a request is sent before the sink counts as unavailable",
 *   default: 3,
 *   parse: Setting.integer({ min: 1, max: 10 })
 * })
 *
 * // Effect<number, InvalidSetting>
 * const program = Setting.read(attempts)
 * ```
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { quote } from "./internal/printable.js"

/**
 * A setting is invalid. The message is one line: the setting, the given value (unless secret) and what is valid.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidSetting extends Schema.TaggedError<InvalidSetting>("controlpublish/InvalidSetting")(
  "InvalidSetting",
  {
    /** The environment variable. */
    setting: Schema.String,
    message: Schema.String
  }
) {}

/**
 * Turns the text of a setting into its value, or says why it cannot, without naming the setting.
 *
 * @since 0.1.0
 * @category models
 */
export type Parse<A> = (text: string) => Either.Either<A, string>

/**
 * A declared setting.
 *
 * @since 0.1.0
 * @category models
 */
export interface Setting<A, Default = undefined> {
  /** The environment variable. */
  readonly env: string
  /** The flag without its dashes. Absent: the setting is read from the environment only. */
  readonly flag: string | undefined
  /** Whether the value of the flag is kept out of errors and output. */
  readonly secret: boolean
  /** One sentence for `--help` and the reference page, without the default. */
  readonly description: string
  /** The default as a user would write it. Absent: there is none. */
  readonly defaultText: string | undefined
  /** The value without the setting. */
  readonly default: Default
  readonly parse: Parse<A>
}

/**
 * A setting of any type, for lists of settings.
 *
 * @since 0.1.0
 * @category models
 */
export type Any = Setting<unknown, unknown>

/**
 * Settings that belong together, as `--help` and the reference page show them.
 *
 * @since 0.1.0
 * @category models
 */
export interface Group {
  readonly title: string
  readonly settings: ReadonlyArray<Any>
}

/**
 * Declares a setting. The text of the default is derived if the default is text, a number, a boolean or a `Duration`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = <A, Default = undefined>(options: {
  readonly env: string
  /** Leave it out for secrets: other users of the machine can read a command line. */
  readonly flag?: string
  readonly secret?: boolean
  readonly description: string
  readonly defaultText?: string
  readonly default?: Default
  readonly parse: Parse<A>
}): Setting<A, Default> => ({
  env: options.env,
  flag: options.flag,
  secret: options.secret ?? false,
  description: options.description,
  defaultText: options.defaultText ?? textOf(options.default),
  default: options.default as Default,
  parse: options.parse
})

const textOf = (value: unknown): string | undefined => {
  if (Duration.isDuration(value)) return durationText(value)
  return typeof value === "string" || typeof value === "number" || typeof value === "boolean"
    ? String(value)
    : undefined
}

const units = [
  ["days", 86_400_000],
  ["hours", 3_600_000],
  ["minutes", 60_000],
  ["seconds", 1_000],
  ["millis", 1]
] as const

/** The largest unit that divides it: `7 days`, `1 second`, text that {@link parseDuration} takes. */
const durationText = (duration: Duration.Duration): string => {
  const millis = Duration.toMillis(duration)
  const [unit, length] = units.find(([, length]) => millis % length === 0) ?? ["millis", 1]
  return millis / length === 1 ? `1 ${unit.slice(0, -1)}` : `${millis / length} ${unit}`
}

/**
 * Reads a setting from the current `ConfigProvider`. An empty value counts as none. Fails with {@link InvalidSetting}
 * if the value is invalid.
 *
 * @since 0.1.0
 * @category reading
 */
export const read = <A, Default>(setting: Setting<A, Default>): Effect.Effect<A | Default, InvalidSetting> =>
  Effect.flatMap(
    Effect.mapError(Config.option(Config.nonEmptyString(setting.env)), (error) => invalid(setting, reasonOf(error))),
    Option.match({
      onNone: () => Effect.succeed<A | Default>(setting.default),
      onSome: (text) => Effect.mapError(setting.parse(text), (reason) => invalid(setting, reason))
    })
  )

/**
 * Makes the error of a setting that proves invalid only in use, such as an unreadable file.
 *
 * @since 0.1.0
 * @category errors
 */
export const invalid = (setting: Any, reason: string): InvalidSetting =>
  new InvalidSetting({ setting: setting.env, message: `${nameOf(setting)}: ${reason}` })

/**
 * The name of a setting in errors: `FEED_SINK (--sink)`.
 *
 * @since 0.1.0
 * @category errors
 */
export const nameOf = (setting: Any): string =>
  setting.flag === undefined ? setting.env : `${setting.env} (--${setting.flag})`

const reasonOf = (error: ConfigError.ConfigError): string => ("message" in error ? error.message : String(error))

// -----------------------------------------------------------------------------
// rules
// -----------------------------------------------------------------------------

/**
 * Takes any text.
 *
 * @since 0.1.0
 * @category rules
 */
export const text: Parse<string> = Either.right

/**
 * Takes any text and keeps it out of errors and logs.
 *
 * @since 0.1.0
 * @category rules
 */
export const secret: Parse<Redacted.Redacted> = (text) => Either.right(Redacted.make(text))

/**
 * Takes one of some words, in any case.
 *
 * @since 0.1.0
 * @category rules
 */
export const oneOf =
  <A extends string>(...valid: ReadonlyArray<A>): Parse<A> =>
  (text) =>
    Either.fromNullable(
      valid.find((value) => value === text.trim().toLowerCase()),
      () => `got ${quote(text)}, valid is one of ${valid.join(", ")}`
    )

/**
 * Takes `true` or `false`, in any case.
 *
 * @since 0.1.0
 * @category rules
 */
export const boolean: Parse<boolean> = (text) => {
  const value = text.trim().toLowerCase()
  return value === "true" || value === "false"
    ? Either.right(value === "true")
    : Either.left(`got ${quote(text)}, valid is true or false`)
}

/**
 * Reads decimal digits as an integer. Returns `undefined` for anything else.
 *
 * @since 0.1.0
 * @category rules
 */
export const parseInteger = (text: string): number | undefined => (/^\d+$/.test(text.trim()) ? Number(text) : undefined)

/**
 * Takes an integer in a range.
 *
 * @since 0.1.0
 * @category rules
 */
export const integer =
  ({ max, min }: { readonly min: number; readonly max: number }): Parse<number> =>
  (text) => {
    const value = parseInteger(text)
    return value !== undefined && value >= min && value <= max
      ? Either.right(value)
      : Either.left(`got ${quote(text)}, valid is an integer from ${min} to ${max}`)
  }

const shortUnits = {
  ms: Duration.millis,
  s: Duration.seconds,
  m: Duration.minutes,
  min: Duration.minutes,
  h: Duration.hours,
  d: Duration.days
}

/**
 * Reads a time with a long or a short unit (`10 seconds`, `500ms`, `7d`). Returns `undefined` for anything else.
 *
 * @since 0.1.0
 * @category rules
 */
export const parseDuration = (text: string): Duration.Duration | undefined => {
  const short = /^(\d+(?:\.\d+)?) *(ms|s|m|min|h|d)$/.exec(text.trim())
  return short === null
    ? Option.getOrUndefined(Duration.decodeUnknown(text.trim()))
    : shortUnits[short[2] as keyof typeof shortUnits](Number(short[1]))
}

/**
 * Takes a finite time of at least one millisecond.
 *
 * @since 0.1.0
 * @category rules
 */
export const duration: Parse<Duration.Duration> = (text) => {
  const value = parseDuration(text)
  return value !== undefined && Duration.toMillis(value) >= 1 && Duration.isFinite(value)
    ? Either.right(value)
    : Either.left(`got ${quote(text)}, valid is a finite time of at least 1 millisecond, e.g. "10 seconds" or "500ms"`)
}
