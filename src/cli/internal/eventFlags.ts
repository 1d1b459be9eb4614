/** One event from flags. */
import * as Options from "@effect/cli/Options"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as ControlEvent from "../../ControlEvent.js"
import { failure, usage, type CliError } from "./CliError.js"
import * as ExactJson from "./exactJson.js"
import { oneLine, quote } from "./text.js"

const text = (name: string, help: string) => Options.text(name).pipe(Options.withDescription(help), Options.optional)

export const flags = {
  type: text("type", "What happened, e.g. tenant.created"),
  tenant: text("tenant", "tenant_id"),
  stack: text("stack", "stack_id"),
  stackVersion: text("stack-version", "version: the stack's version after the change"),
  baseVersion: text("base-version", "base_version: the stack's version before the change"),
  artifactRef: text("artifact-ref", "artifact_ref: where the artifact is; needs a checksum"),
  checksum: text("checksum", "sha256: and 64 hexadecimal digits"),
  eventId: text("event-id", "event_id (default: a new UUIDv7)"),
  field: Options.text("field").pipe(
    Options.withDescription(`A further field as name=JSON, any number of times, e.g. --field plan='"gold"'`),
    Options.repeated
  )
}

export type Flags = {
  readonly [Name in Exclude<keyof typeof flags, "field">]: Option.Option<string>
} & { readonly field: ReadonlyArray<string> }

const fields = {
  type: { flag: "--type", field: "type" },
  tenant: { flag: "--tenant", field: "tenant_id" },
  stack: { flag: "--stack", field: "stack_id" },
  stackVersion: { flag: "--stack-version", field: "version" },
  baseVersion: { flag: "--base-version", field: "base_version" },
  artifactRef: { flag: "--artifact-ref", field: "artifact_ref" },
  checksum: { flag: "--checksum", field: "checksum" },
  eventId: { flag: "--event-id", field: "event_id" }
} as const satisfies Record<Exclude<keyof Flags, "field">, object>

type Name = keyof typeof fields

const names = Object.keys(fields) as ReadonlyArray<Name>

/** The given flags. */
export const given = (flags: Flags): ReadonlyArray<string> => [
  ...names.filter((name) => Option.isSome(flags[name])).map((name) => fields[name].flag),
  ...(flags.field.length > 0 ? ["--field"] : [])
]

const isNumber = (name: Name): boolean => name === "stackVersion" || name === "baseVersion"

const parseField = (text: string): Effect.Effect<readonly [string, unknown], CliError> => {
  const [, name = "", json = ""] = /^([^=]+)=(.*)$/s.exec(text) ?? []
  return Effect.try({
    try: () => [name, JSON.parse(json) as unknown] as const,
    catch: () =>
      usage(
        `--field: got ${quote(text)}, valid is name=JSON; text needs quotes of its own, as in --field plan='"gold"'`
      )
  })
}

/** The event of the flags. */
export const toEvent = (flags: Flags): Effect.Effect<ControlEvent.ControlEvent, CliError> =>
  Effect.gen(function* () {
    const entries = new Map<string, unknown>()
    for (const name of names) {
      const value = flags[name]
      if (Option.isNone(value)) continue
      if (isNumber(name) && !/^\d+$/.test(value.value)) {
        return yield* usage(`${fields[name].flag}: got ${quote(value.value)}, valid is an integer from 0 to 2^53 - 1`)
      }
      entries.set(fields[name].field, isNumber(name) ? Number(value.value) : value.value)
    }
    for (const text of flags.field) {
      const [name, value] = yield* parseField(text)
      const changed = ExactJson.whyChanged(text.slice(name.length + 1))
      if (changed !== undefined) return yield* usage(`--field: the value of ${quote(name)} ${changed}`)
      if (entries.has(name)) return yield* usage(`--field: the field ${quote(name)} is given twice`)
      entries.set(name, value)
    }
    const event = Object.fromEntries(entries) as ControlEvent.Input
    return yield* Effect.mapError(ControlEvent.make(event), (error) => {
      const name = names.find((name) => fields[name].field === error.field)
      const field = name === undefined ? error.field : `${error.field} (${fields[name].flag})`
      return failure(`The event is invalid: ${oneLine(field)} ${error.reason}`, error)
    })
  })
