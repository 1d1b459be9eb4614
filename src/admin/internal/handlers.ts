/** The handlers of the API. */
import * as HttpApiBuilder from "@effect/platform/HttpApiBuilder"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import type * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { OutboxAdmin, type EventFilter, type EventState } from "../../OutboxAdmin.js"
import { Pump } from "../../Pump.js"
import { Retention } from "../../Retention.js"
import { AdminApi, BadRequest, Conflict, NotFound, NotReady, Status } from "../AdminApi.js"
import { NodeView } from "../NodeView.js"
import { StatusBoard } from "../StatusBoard.js"
import type * as Addresses from "./addresses.js"
import * as OperatorActions from "./operatorActions.js"
import { inParts, reading, writing } from "./patience.js"
import * as Payloads from "./payloads.js"
import * as Streams from "./streams.js"

/** The default page size. */
const pageSize = 100

const invalidCursor = () =>
  Effect.fail(new BadRequest({ field: "cursor", message: "cursor: it is the `next` of no page" }))

/** The port's filter for the field names of requests. */
const filterOf = ({
  id,
  key,
  tenant,
  ...rest
}: {
  readonly id?: string | undefined
  readonly type?: string | undefined
  readonly tenant?: string | undefined
  readonly key?: string | undefined
  readonly state?: EventState | undefined
  readonly since?: number | undefined
  readonly until?: number | undefined
}): EventFilter => defined<EventFilter>({ ...rest, eventId: id, tenantId: tenant, orderingKey: key })

const defined = <A extends object>(fields: { readonly [K in keyof A]?: A[K] | undefined }): A =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as A

export const health = HttpApiBuilder.group(AdminApi, "health", (handlers) =>
  Effect.map(StatusBoard, (board) =>
    handlers
      .handle("live", () => Effect.succeed({ live: true as const }))
      .handle("ready", () =>
        Effect.flatMap(board.health, (health) => (health.ready ? Effect.succeed(health) : new NotReady(health)))
      )
  )
)

/** `stopping` ends the status streams. A proxy's streams belong to many clients. */
export const outbox = ({
  isProxy,
  stopping
}: {
  readonly stopping: Deferred.Deferred<void>
  readonly isProxy: Addresses.Matches
}) =>
  HttpApiBuilder.group(AdminApi, "outbox", (handlers) =>
    Effect.gen(function* () {
      const admin = yield* OutboxAdmin
      const operatorActions = OperatorActions.make(admin)
      const board = yield* StatusBoard
      const retention = yield* Retention

      const listen = Streams.make(isProxy, Streams.status)
      const download = Streams.make(isProxy, Streams.downloads)
      const encode = Schema.encodeSync(Status)
      // Encoded once for all readers.
      let written: { readonly status: Status; readonly text: string } | undefined
      const textOf = (status: Status): string => {
        if (written?.status !== status) {
          written = { status, text: `event: status\ndata: ${JSON.stringify(encode(status))}\n\n` }
        }
        return written.text
      }
      const events = board.changes.pipe(Stream.map(textOf), Stream.interruptWhenDeferred(stopping), Stream.encodeText)

      const found = (eventId: string) =>
        Effect.flatMap(
          admin.event(eventId),
          Option.match({
            onNone: () =>
              Effect.fail(
                new NotFound({ message: `The outbox holds no event with the id ${JSON.stringify(eventId)}` })
              ),
            onSome: Effect.succeed
          })
        )

      const one = { affected: 1 }

      return handlers
        .handle("status", () => board.status)
        .handle("identity", () => reading(admin.identity()))
        .handle("history", () => board.history)
        .handle("stream", () =>
          Effect.as(listen, HttpServerResponse.stream(events, { contentType: "text/event-stream" }) as never)
        )
        .handle("events", ({ urlParams: { cursor, limit, ...filter } }) =>
          admin
            .events(filterOf(filter), { limit: limit ?? pageSize, cursor })
            .pipe(Effect.catchTag("InvalidCursor", invalidCursor), reading)
        )
        .handle("event", ({ path: { eventId } }) =>
          reading(Effect.tap(found(eventId), () => operatorActions.read(eventId, "shown")))
        )
        .handle("payload", ({ path: { eventId } }) =>
          Effect.zipRight(download, admin.payload(eventId)).pipe(
            Effect.catchTags({
              EventNotFound: ({ message }) => new NotFound({ message }),
              PayloadOmitted: ({ message }) => new Conflict({ message })
            }),
            Effect.tap(() => operatorActions.read(eventId, "downloaded")),
            reading,
            Effect.map((payload) => Payloads.answer(eventId, payload) as never)
          )
        )
        .handle("audit", ({ urlParams: { changesOnly, cursor, limit } }) =>
          admin
            .audit({ limit: limit ?? pageSize, cursor, changesOnly })
            .pipe(Effect.catchTag("InvalidCursor", invalidCursor), reading)
        )
        .handle("redrive", ({ payload: { filter, reason } }) =>
          Effect.flatMap(OperatorActions.by(reason), (by) =>
            admin.redrive(filterOf(filter), by).pipe(
              inParts("the audit tells what was; ask again for the rest"),
              Effect.map((affected) => ({ affected })),
              operatorActions.done("redrive", by, { filter: JSON.stringify(filter) })
            )
          )
        )
        .handle("redriveEvent", ({ path: { eventId }, payload: { reason } }) =>
          Effect.flatMap(OperatorActions.by(reason), (by) =>
            admin.redrive({ eventId }, by).pipe(
              Effect.flatMap((affected) =>
                affected > 0
                  ? Effect.succeed({ affected })
                  : Effect.flatMap(
                      found(eventId),
                      ({ state }) => new Conflict({ message: `The event is not parked, it is ${state}` })
                    )
              ),
              writing,
              operatorActions.done("redrive", by, { event_id: eventId })
            )
          )
        )
        .handle("park", ({ path: { eventId }, payload: { reason } }) =>
          Effect.flatMap(OperatorActions.by(reason), (by) =>
            admin.park(eventId, by).pipe(
              Effect.catchTags({
                EventNotFound: ({ message }) => new NotFound({ message }),
                WrongState: ({ message }) => new Conflict({ message })
              }),
              writing,
              Effect.as(one),
              operatorActions.done("park", by, { event_id: eventId })
            )
          )
        )
        .handle("discard", ({ path: { eventId }, payload: { reason } }) =>
          Effect.flatMap(OperatorActions.by(reason), (by) =>
            admin.discard(eventId, by).pipe(
              Effect.catchTags({
                EventNotFound: ({ message }) => new NotFound({ message }),
                WrongState: ({ message }) => new Conflict({ message })
              }),
              writing,
              Effect.as(one),
              operatorActions.done("discard", by, { event_id: eventId })
            )
          )
        )
        .handle("erase", ({ path: { eventId }, payload: { reason } }) =>
          Effect.flatMap(OperatorActions.by(reason), (by) =>
            admin.erase(eventId, by).pipe(
              Effect.catchTags({
                EventNotFound: ({ message }) => new NotFound({ message }),
                WrongState: ({ message }) => new Conflict({ message })
              }),
              writing,
              operatorActions.done("erase", by, { event_id: eventId })
            )
          )
        )
        .handle("prune", ({ payload: { reason } }) =>
          Effect.flatMap(OperatorActions.by(reason), (by) =>
            retention.runNow(by).pipe(
              Effect.catchTag("RetentionOff", ({ message }) => new Conflict({ message })),
              inParts("the retention goes on by itself with the rest"),
              Effect.map((affected) => ({ affected })),
              operatorActions.done("prune", by)
            )
          )
        )
    })
  )

export const node = HttpApiBuilder.group(AdminApi, "node", (handlers) =>
  Effect.map(NodeView, ({ read }) => handlers.handle("node", () => read))
)

export const pump = HttpApiBuilder.group(AdminApi, "pump", (handlers) =>
  Effect.gen(function* () {
    const admin = yield* OutboxAdmin
    const operatorActions = OperatorActions.make(admin)
    const pump = yield* Pump

    // Nothing is done if the audit log cannot be written, and what it has is done to the end.
    const audited = (action: "pause" | "resume", reason: string) =>
      Effect.flatMap(OperatorActions.by(reason), (by) =>
        writing(admin.record(action, by)).pipe(
          Effect.zipRight(Effect.zipRight(pump[action], pump.status)),
          operatorActions.done(action, by)
        )
      )
    return handlers
      .handle("pause", ({ payload: { reason } }) => audited("pause", reason), { uninterruptible: true })
      .handle("resume", ({ payload: { reason } }) => audited("resume", reason), { uninterruptible: true })
  })
)
