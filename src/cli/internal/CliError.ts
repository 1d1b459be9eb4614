import * as Data from "effect/Data"

/** Ends a command with one line on stderr. */
export class CliError extends Data.TaggedError("CliError")<{
  readonly message: string
  readonly exitCode: number
  readonly cause?: unknown
}> {}

/** The command failed. */
export const failure = (message: string, cause?: unknown): CliError => new CliError({ message, exitCode: 1, cause })

/** The command line is invalid. */
export const usage = (message: string): CliError => new CliError({ message, exitCode: 2 })

/** The event does not exist. */
export const notFound = (message: string, cause?: unknown): CliError => new CliError({ message, exitCode: 3, cause })

/** The event's state does not allow the action. */
export const wrongState = (message: string, cause?: unknown): CliError => new CliError({ message, exitCode: 4, cause })
