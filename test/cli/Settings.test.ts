import { expect, it } from "@effect/vitest"
import { fileURLToPath } from "node:url"
import { format, resolveConfig } from "prettier"
import * as Settings from "../../src/cli/Settings.js"
import type { Setting } from "../../src/index.js"

const code = (text: string) => `\`${text}\``

/** At 100 characters a line, its continuation indented. */
const wrap = (text: string): string => {
  const lines: Array<string> = []
  let line = ""
  for (const [word] of text.matchAll(/`[^`]*`\S*|\S+/g)) {
    if (`${line} ${word}`.length > 100) {
      lines.push(line)
      line = `  ${word}`
    } else line = line === "" ? word : `${line} ${word}`
  }
  return [...lines, line].join("\n")
}

const item = ({ defaultText, description, env, flag }: Setting.Any): string => {
  const names = flag === undefined ? code(env) : `${code(env)}, ${code(`--${flag}`)}`
  const text = description.replace(/\{\w+\}/g, code)
  return wrap(`- ${names}: ${text}.${defaultText === undefined ? "" : ` Default: ${code(defaultText)}.`}`)
}

const page = (): string =>
  `# Configuration

Every setting of \`controlpublish\` has an environment variable, and most have a flag. The flag wins.
An empty value counts as none. An invalid value ends the command with one line that names the
setting and says what is valid.

A setting without a flag is read from the environment only: other users of the machine can read a
command line. Times take a unit: \`500ms\`, \`10s\`, \`5m\`, \`12h\`, \`7d\`, or \`"10 seconds"\`.
\`controlpublish <command> --help\` shows what a command takes. A program that embeds the pump sets the
same with \`PumpConfig.layer\`, and also retry schedules and what happens to the key of a parked event.

This page is generated from the declarations in the source: \`npm run docs\` writes it.

${Settings.groups.map(({ settings, title }) => `## ${title}\n\n${settings.map(item).join("\n")}`).join("\n\n")}

The SDK of OpenTelemetry reads its other variables itself, see
[tracing](tracing.md).
`

const formatted = async () => {
  const filepath = fileURLToPath(new URL("../../docs/configuration.md", import.meta.url))
  return format(page(), { ...(await resolveConfig(filepath)), filepath })
}

it("docs/configuration.md has the settings as they are declared (npm run docs writes it)", async () => {
  await expect(await formatted()).toMatchFileSnapshot("../../docs/configuration.md")
})
