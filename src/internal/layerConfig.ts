import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

/** A layer that takes its options from `Config`. */
export type LayerConfig<Options, A, E, R> = (config: Config.Config.Wrap<Options>) => Layer.Layer<A, E | ConfigError, R>

/** Has a layer take its options from `Config`. */
export const layerConfig =
  <Options, A, E, R>(layer: (options: Options) => Layer.Layer<A, E, R>): LayerConfig<Options, A, E, R> =>
  (config) =>
    Layer.unwrapEffect(Effect.map(Config.unwrap(config), layer))
