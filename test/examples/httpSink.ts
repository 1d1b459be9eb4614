import { ControlVersion, Sink } from "controlpublish"
import { Effect, Layer } from "effect"

declare const post: (body: string) => Effect.Effect<{ version: number; known: boolean }, { status: number }>

export const layerHttp = Layer.succeed(
  Sink.Sink,
  Sink.fromAppend({
    name: "http",
    append: ({ eventId, payload }) =>
      post(payload).pipe(
        Effect.map(({ known, version }) => Sink.published(ControlVersion.make(version), known)),
        Effect.mapError(({ status }) =>
          status === 413
            ? new Sink.EventRejected({ eventId, message: "too large" })
            : new Sink.SinkUnavailable({ sink: "http", reason: "unreachable", message: `status ${status}` })
        )
      )
  })
)
