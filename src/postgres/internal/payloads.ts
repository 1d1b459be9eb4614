import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { EventNotFound, PayloadOmitted, type OutboxAdmin } from "../../OutboxAdmin.js"
import { OutboxError } from "../../OutboxStore.js"
import type { Session } from "./session.js"

/** Bytes of a piece. The server reads the whole payload for each piece. */
const pieceBytes = 2 * 1024 * 1024

interface Header {
  readonly bytes: number
  readonly omitted: boolean
}

interface Piece {
  readonly piece: Uint8Array
  /** The size of the whole payload in UTF-8. */
  readonly total: number
  readonly bytes: number
}

const changed = (eventId: string) =>
  new OutboxError({
    message: `The payload of ${JSON.stringify(eventId)} has changed while it was read: try again`,
    retryable: true
  })

/** Reads payloads. Holds no connection between two pieces, so that a slow reader delays nobody. */
export const make =
  (
    text: { readonly payload: string; readonly piece: string },
    read: <A>(use: (session: Session) => Effect.Effect<A, OutboxError>) => Effect.Effect<A, OutboxError>
  ): OutboxAdmin["Type"]["payload"] =>
  (eventId) =>
    Effect.gen(function* () {
      const [header] = yield* read((session) => session.query<Header>(text.payload, [eventId]))
      if (header === undefined) return yield* new EventNotFound({ eventId })
      const { bytes, omitted } = header
      if (omitted) return yield* new PayloadOmitted({ eventId, bytes })
      const pieces = Stream.paginateEffect(1, (first) =>
        Effect.gen(function* () {
          const [found] = yield* read((session) => session.query<Piece>(text.piece, [eventId, first, pieceBytes]))
          if (found === undefined || found.bytes !== bytes) return yield* changed(eventId)
          const next = first + pieceBytes
          return [found.piece, next <= found.total ? Option.some(next) : Option.none()] as const
        })
      )
      return { bytes, pieces }
    })
