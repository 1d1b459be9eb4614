import { ConfigProvider, Effect } from "effect"
import type { Setting } from "../../src/index.js"

/** Reads settings from an environment of this alone. */
export const given = (environment: Readonly<Record<string, string>>) => {
  const provider = ConfigProvider.fromMap(new Map(Object.entries(environment)))
  return <A, E>(setting: Effect.Effect<A, E>): Effect.Effect<A, E> => Effect.withConfigProvider(setting, provider)
}

/** The message with which a setting is refused. */
export const messageOf = <A>(
  setting: Effect.Effect<A, Setting.InvalidSetting>,
  environment: Readonly<Record<string, string>>
): Effect.Effect<string, A> => Effect.map(Effect.flip(given(environment)(setting)), ({ message }) => message)
