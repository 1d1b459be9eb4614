/**
 * The flags of settings. A flag wins over the environment variable of its setting.
 *
 * @since 0.1.0
 */
import * as Options from "@effect/cli/Options"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Setting from "../Setting.js"

/**
 * The settings that the command line gave, by environment variable.
 *
 * @since 0.1.0
 * @category models
 */
export type Given = ReadonlyMap<string, string>

const flagOf = (setting: Setting.Any, flag: string): Options.Options<Option.Option<readonly [string, string]>> => {
  const byDefault = setting.defaultText === undefined ? "" : `; default ${setting.defaultText}`
  const described = <A>(options: Options.Options<A>) =>
    options.pipe(Options.withDescription(`${setting.description}${byDefault} [${setting.env}]`), Options.optional)
  return setting.secret
    ? Options.map(
        described(Options.redacted(flag)),
        Option.map((value) => [setting.env, Redacted.value(value)])
      )
    : Options.map(
        described(Options.text(flag)),
        Option.map((value) => [setting.env, value])
      )
}

/**
 * Makes the flags of all settings that have one. An empty value counts as absent.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (...groups: ReadonlyArray<Setting.Group>): Options.Options<Given> =>
  Options.map(
    Options.all(
      groups.flatMap(({ settings }) =>
        settings.flatMap((setting) => (setting.flag === undefined ? [] : [flagOf(setting, setting.flag)]))
      )
    ),
    (given) => new Map(given.flatMap(Option.toArray).filter(([, text]) => text !== ""))
  )

/**
 * Runs an effect with the settings of the command line, which win over the environment.
 *
 * @since 0.1.0
 * @category reading
 */
export const provide =
  (given: Given) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.configProviderWith((environment) =>
      Effect.withConfigProvider(
        self,
        ConfigProvider.orElse(ConfigProvider.fromMap(new Map(given)), () => environment)
      )
    )
