import * as Data from "effect/Data"

/** Ends a command with one line on stderr. */
export class CliError extends Data.TaggedError("CliError")<{
  readonly message: string
  readonly exitCode: number
  readonly cause?: unknown
}> {}

/** The command cannot do what it is there for. */
export const failure = (message: string, cause?: unknown): CliError => new CliError({ message, exitCode: 1, cause })

/** The command line makes no sense. */
export const usage = (message: string): CliError => new CliError({ message, exitCode: 2 })

/** There is no such event. */
export const notFound = (message: string, cause?: unknown): CliError => new CliError({ message, exitCode: 3, cause })

/** The event is in a state in which this cannot be done to it. */
export const wrongState = (message: string, cause?: unknown): CliError => new CliError({ message, exitCode: 4, cause })
