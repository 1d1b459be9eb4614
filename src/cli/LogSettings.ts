/**
 * The level and the format of the log.
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as LogLevel from "effect/LogLevel"
import { quote } from "../internal/printable.js"
import * as Setting from "../Setting.js"

/**
 * How a log line is written.
 *
 * @since 0.1.0
 * @category models
 */
export type LogFormat = "json" | "logfmt" | "pretty"

const nameOf = (level: LogLevel.LogLevel) => level._tag.toLowerCase()

// It has no flag of its own: @effect/cli adds --log-level to each command, and that flag wins.
const levelSetting = Setting.make({
  env: "LOG_LEVEL",
  description: "The minimum level that is logged; the flag --log-level wins",
  default: LogLevel.Info,
  defaultText: nameOf(LogLevel.Info),
  parse: (text) => {
    const level = LogLevel.allLevels.find((level) => nameOf(level) === text.trim().toLowerCase())
    return level === undefined
      ? Either.left(`got ${quote(text)}, valid is one of ${LogLevel.allLevels.map(nameOf).join(", ")}`)
      : Either.right(level)
  }
})

const formatSetting = Setting.make({
  env: "LOG_FORMAT",
  description: "The format of the log: json, logfmt or pretty",
  defaultText: "pretty on a terminal, else logfmt",
  default: process.stderr.isTTY ? ("pretty" as const) : ("logfmt" as const),
  parse: Setting.oneOf("json", "logfmt", "pretty")
})

/**
 * The settings of the log.
 *
 * @since 0.1.0
 * @category declarations
 */
export const group: Setting.Group = { title: "Log", settings: [levelSetting, formatSetting] }

/**
 * Reads the minimum level that is logged.
 *
 * @since 0.1.0
 * @category reading
 */
export const logLevel: Effect.Effect<LogLevel.LogLevel, Setting.InvalidSetting> = Setting.read(levelSetting)

/**
 * Reads the format of the log.
 *
 * @since 0.1.0
 * @category reading
 */
export const logFormat: Effect.Effect<LogFormat, Setting.InvalidSetting> = Setting.read(formatSetting)
