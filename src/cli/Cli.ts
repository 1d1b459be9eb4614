/**
 * The command `controlpublish`.
 *
 * Exit codes: 0 success, also of a `serve` or `status --watch` that was stopped; 1 failure, or an invalid setting; 2 an
 * invalid command line; 3 no such event; 4 the event's state does not allow the change; 5 `status --check` found that
 * no pump can publish; 130 interrupted.
 *
 * The reason is one line on stderr, except for unknown flags and commands, which @effect/cli explains.
 *
 * @since 0.1.0
 */
import * as CliCommand from "@effect/cli/Command"
import * as ValidationError from "@effect/cli/ValidationError"
import type * as CliApp from "@effect/cli/CliApp"
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Logger from "effect/Logger"
import { CliError, usage } from "./internal/CliError.js"
import { hasColors, plain } from "./internal/colors.js"
import { entries } from "./internal/commands.js"
import * as Help from "./internal/help.js"
import * as Loggers from "./internal/loggers.js"
import { discreet, messageOf, oneLine } from "./internal/text.js"
import { version } from "../internal/version.js"
import * as LogSettings from "./LogSettings.js"
import * as Telemetry from "./Telemetry.js"

const command = CliCommand.make("controlpublish").pipe(
  CliCommand.withDescription("A transactional outbox: append control events, and publish them once, in order per key."),
  CliCommand.withSubcommands(Arr.map(entries, ({ command }) => command)),
  // With its stack at the log level debug.
  CliCommand.transformHandler(Effect.tapErrorCause((cause) => Effect.logDebug("The command failed", cause)))
)

const interrupted = 130

/** The line and the exit code for a failure. */
const describe = (cause: Cause.Cause<unknown>): { readonly message: string | undefined; readonly exitCode: number } => {
  const error = Cause.squash(cause)
  // @effect/cli has printed it.
  if (ValidationError.isValidationError(error)) return { message: undefined, exitCode: 2 }
  if (error instanceof CliError) return { message: oneLine(error.message), exitCode: error.exitCode }
  if (Cause.isFailure(cause) && error instanceof Error) return { message: oneLine(error.message), exitCode: 1 }
  return { message: `unexpected: ${messageOf(error)}`, exitCode: 1 }
}

/** @effect/cli colors its output even if it goes to a file. */
const colored = (stream: NodeJS.WriteStream, text: string): string => (hasColors(stream) ? text : plain(text))

/** @effect/cli quotes the command line, and a URL with a password may be in the wrong place. */
const discreetConsole = Effect.consoleWith((console) =>
  Effect.succeed({
    ...console,
    error: (...args: ReadonlyArray<unknown>) =>
      console.error(...args.map((arg) => (typeof arg === "string" ? discreet(colored(process.stderr, arg)) : arg))),
    log: (...args: ReadonlyArray<unknown>) =>
      console.log(...args.map((arg) => (typeof arg === "string" ? colored(process.stdout, arg) : arg)))
  })
)

/** `-` is a file, not a flag, wherever it is. @effect/cli takes everything after it for files as well. */
const withDashLast = (args: ReadonlyArray<string>): ReadonlyArray<string> => {
  const isFile = (arg: string, index: number) => arg === "-" && !/^--[^=]+$/.test(args[index - 1] ?? "")
  return [...args.filter((arg, index) => !isFile(arg, index)), ...args.filter(isFile)]
}

/** @effect/cli leaves an empty value out where a flag may be given several times, as those that grant. */
const refuseBlank = (args: ReadonlyArray<string>): Effect.Effect<void, CliError> => {
  const blank = args.find(
    (arg, index) => (/^--grant-[a-z]+$/.test(arg) && args[index + 1] === "") || /^--grant-[a-z]+=$/.test(arg)
  )
  return blank === undefined
    ? Effect.void
    : Effect.fail(usage(`${blank.replace("=", "")}: got an empty text, valid is the name of a role`))
}

/**
 * Runs the command line of this process (`process.argv`) and sets its exit code.
 *
 * @since 0.1.0
 * @category constructors
 */
export const run = (argv: ReadonlyArray<string>): Effect.Effect<void, never, CliApp.CliApp.Environment> =>
  Effect.gen(function* () {
    const level = yield* LogSettings.logLevel
    const format = yield* LogSettings.logFormat
    const console = yield* discreetConsole
    const help = Help.find(argv.slice(2), entries, process.stdout)
    if (help !== undefined) return yield* Console.log(help)
    yield* refuseBlank(argv.slice(2))
    yield* CliCommand.run(command, { name: "controlpublish", version })(withDashLast(argv)).pipe(
      Effect.provide(Telemetry.layer),
      Effect.withConsole(console),
      Effect.provide(Logger.replace(Logger.defaultLogger, Loggers.make(format, level))),
      Logger.withMinimumLogLevel(level)
    )
  }).pipe(
    // Finalizers of an interruption have to run as well.
    (command) => Effect.uninterruptibleMask((restore) => Effect.flatMap(Effect.exit(restore(command)), end))
  )

const end = (exit: Exit.Exit<void, unknown>): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (Exit.isSuccess(exit)) return Effect.void
    if (Cause.isInterruptedOnly(exit.cause)) {
      process.exitCode ??= interrupted
      return Effect.void
    }
    const { exitCode, message } = describe(exit.cause)
    process.exitCode = exitCode
    return message === undefined ? Effect.void : Console.error(`controlpublish: ${message}`)
  })
