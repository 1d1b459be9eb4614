/** `--help`: the list of commands, and one page per command with its flags by group. */
import * as CommandDescriptor from "@effect/cli/CommandDescriptor"
import * as CliConfig from "@effect/cli/CliConfig"
import type * as HelpDoc from "@effect/cli/HelpDoc"
import type * as Span from "@effect/cli/HelpDoc/Span"
import * as Settings from "../Settings.js"
import type * as Setting from "../../Setting.js"
import { version } from "../../internal/version.js"
import { hasColors, paint } from "./colors.js"

/** A command as the help shows it. */
export interface Entry {
  readonly name: string
  /** What it does, for the list of commands. */
  readonly summary: string
  readonly command: { readonly descriptor: CommandDescriptor.Command<unknown> }
}

interface Option {
  readonly name: string
  readonly text: string
}

interface Page {
  readonly description: string
  readonly args: ReadonlyArray<Option>
  readonly options: ReadonlyArray<Option>
}

const textOf = (span: Span.Span): string => {
  switch (span._tag) {
    case "Sequence":
      return textOf(span.left) + textOf(span.right)
    case "Text":
    case "URI":
      return span.value
    default:
      return textOf(span.value)
  }
}

const flatten = (doc: HelpDoc.HelpDoc): ReadonlyArray<HelpDoc.HelpDoc> =>
  doc._tag === "Sequence" ? [...flatten(doc.left), ...flatten(doc.right)] : [doc]

const paragraphs = (doc: HelpDoc.HelpDoc): ReadonlyArray<string> =>
  flatten(doc).flatMap((part) => (part._tag === "Paragraph" ? [textOf(part.value)] : []))

/** Text that @effect/cli adds: the type of a value before the description, and whether it is required after it. */
const isFiller = (text: string): boolean =>
  /^(A user-defined piece of text|A true or false value|An? \w+|One of the following|This (setting|option|argument) )/.test(
    text
  )

const definitions = (doc: HelpDoc.HelpDoc): ReadonlyArray<Option> =>
  doc._tag === "DescriptionList"
    ? doc.definitions.map(([name, about]) => ({
        name: textOf(name)
          .replace(/^\((.*)\)$/, "$1")
          .replace(/ (text|redacted|integer)(\.\.\.)?$/, " <$1>$2")
          .replace("<redacted>", "<text>"),
        text: paragraphs(about)
          .filter((paragraph, index) => !(index === 0 || /^This /.test(paragraph)) || !isFiller(paragraph))
          .join(" ")
      }))
    : []

/** The flags that @effect/cli adds to every command. */
const builtIn: ReadonlyArray<readonly [string, string]> = [
  [
    "--log-level <level>",
    "The minimum level that is logged: all, trace, debug, info, warning, error, fatal or none (default: info) [LOG_LEVEL]"
  ],
  ["LOG_FORMAT", "The format of the log: json, logfmt or pretty (default: pretty on a terminal, else logfmt)"],
  ["-h, --help", "Show this help"],
  ["--version", "Show the version"],
  ["--completions <shell>", "Print a completion script for sh, bash, fish or zsh"],
  ["--wizard", "Build a command line by answering questions"]
]

const isBuiltIn = ({ name }: Option): boolean =>
  /^(--completions|--log-level|-h|--help|--wizard|--version)\b/.test(name)

const pageOf = (command: Entry["command"]): Page => {
  const page = { description: "", args: [] as Array<Option>, options: [] as Array<Option> }
  let section = ""
  for (const part of flatten(CommandDescriptor.getHelp(command.descriptor, CliConfig.defaultConfig))) {
    if (part._tag === "Header") section = textOf(part.value)
    else if (part._tag === "Paragraph" && section === "DESCRIPTION") page.description += textOf(part.value)
    else if (section === "ARGUMENTS") page.args.push(...definitions(part))
    else if (section === "OPTIONS") page.options.push(...definitions(part).filter((option) => !isBuiltIn(option)))
  }
  return page
}

const wrap = (text: string, width: number): ReadonlyArray<string> => {
  const lines: Array<string> = []
  let line = ""
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line)
      line = word
    } else line = line === "" ? word : `${line} ${word}`
  }
  return [...lines, line]
}

/** Names on the left, texts beside them, or below a long name. */
const columns = (rows: ReadonlyArray<readonly [string, string]>, width: number): ReadonlyArray<string> => {
  const left = Math.min(28, Math.max(...rows.map(([name]) => name.length)))
  return rows.flatMap(([name, text]) => {
    const lines = wrap(text, width - left - 4)
    const indent = " ".repeat(left + 4)
    return name.length > left
      ? [`  ${name}`, ...lines.map((line) => indent + line)]
      : lines.map((line, index) => (index === 0 ? `  ${name.padEnd(left)}  ${line}` : indent + line))
  })
}

const describe = ({ defaultText, description, env, flag }: Setting.Any): readonly [string, string] => {
  const byDefault = defaultText === undefined ? "" : ` (default: ${defaultText})`
  return flag === undefined
    ? [env, `${description}${byDefault}`]
    : [`--${flag} <text>`, `${description}${byDefault} [${env}]`]
}

interface Style {
  readonly width: number
  readonly title: (text: string) => string
}

const styleOf = (stream: NodeJS.WriteStream): Style => {
  const colored = paint(hasColors(stream))
  return {
    width: Math.max(60, Math.min(stream.isTTY ? stream.columns : 100, 100)),
    title: (text) => colored("bold", text)
  }
}

const section = (style: Style, title: string, lines: ReadonlyArray<string>): ReadonlyArray<string> =>
  lines.length === 0 ? [] : ["", style.title(`${title}:`), ...lines]

const overview = (entries: ReadonlyArray<Entry>, style: Style): string =>
  [
    `controlpublish ${version}: a transactional outbox. Appends control events and publishes them, in order per key.`,
    "",
    `${style.title("Usage:")} controlpublish <command> [options]`,
    ...section(
      style,
      "Commands",
      columns(
        entries.map(({ name, summary }) => [name, summary]),
        style.width
      )
    ),
    ...section(style, "Options of every command", columns(builtIn, style.width)),
    "",
    "controlpublish <command> --help shows the options of a command, their defaults and environment variables."
  ].join("\n")

const flagName = (option: Option): string => /^--([\w-]+)/.exec(option.name)?.[1] ?? ""

const page = ({ command, name }: Entry, style: Style): string => {
  const { args, description, options } = pageOf(command)
  const given = new Set(options.map(flagName))
  const groups = Settings.groups.filter(({ settings }) =>
    settings.some(({ flag }) => flag !== undefined && given.has(flag))
  )
  const declared = new Set(groups.flatMap(({ settings }) => settings.flatMap(({ flag }) => flag ?? [])))
  const own = options.filter((option) => !declared.has(flagName(option)))
  const usage = ["controlpublish", name, ...args.map((arg) => arg.name), "[options]"].join(" ")
  const rows = (list: ReadonlyArray<Option>) =>
    list.length === 0
      ? []
      : columns(
          list.map((option) => [option.name, option.text]),
          style.width
        )
  return [
    ...wrap(description, style.width),
    "",
    `${style.title("Usage:")} ${usage}`,
    ...section(style, "Arguments", rows(args)),
    ...section(style, "Options", rows(own)),
    ...groups.flatMap(({ settings, title }) => section(style, title, columns(settings.map(describe), style.width))),
    ...section(style, "Options of every command", columns(builtIn, style.width)),
    "",
    ...wrap(
      "An option wins over its environment variable (in brackets). Names in capitals are read from the environment only.",
      style.width
    )
  ].join("\n")
}

/** Returns the help that the command line asks for with `--help` or `-h`, or `undefined` if it does not ask. */
export const find = (
  args: ReadonlyArray<string>,
  entries: ReadonlyArray<Entry>,
  stream: NodeJS.WriteStream
): string | undefined => {
  const end = args.indexOf("--")
  const before = end < 0 ? args : args.slice(0, end)
  const [first] = before
  const asks = before.length === 0 || before.includes("--help") || before.includes("-h")
  if (!asks) return undefined
  const style = styleOf(stream)
  const entry = entries.find(({ name }) => name === first)
  if (entry !== undefined) return page(entry, style)
  // An unknown command is an error.
  return first === undefined || first.startsWith("-") ? overview(entries, style) : undefined
}
