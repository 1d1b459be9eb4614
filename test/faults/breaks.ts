/** Ways to break a promise on purpose: text of the source that is replaced when the service is bundled. */
const noMessageId = {
  file: "src/jetstream/internal/message.ts",
  from: "${line(header.messageId, headerValue(eventId))}",
  to: "${line(header.messageId, headerValue(eventId + Math.random()))}"
}

const noExpectedSequence = {
  file: "src/jetstream/internal/message.ts",
  from: '(options.once ? line(header.expectedLastSubjectSequence, "0") : "")',
  to: '""'
}

const noLaneLock = {
  file: "src/postgres/internal/claim.ts",
  from: "pg_try_advisory_xact_lock(${names.laneLock}, lane) AS taken",
  to: "true AS taken"
}

export const breaks: Readonly<
  Record<string, ReadonlyArray<{ readonly file: string; readonly from: string; readonly to: string }>>
> = {
  "no-lane-lock": [noLaneLock],
  // The stream refuses what two pumps publish of one lane, as long as it is told what it is.
  "no-lane-lock-no-deduplication": [noLaneLock, noMessageId, noExpectedSequence],
  "no-order-lock": [
    {
      file: "src/postgres/internal/guarded.ts",
      from: 'pg_advisory_xact_lock(${names.orderLock}, ${bucketOf("NEW.ordering_key")}) IS NOT NULL',
      to: "true"
    }
  ],
  "write-back-first": [
    {
      file: "src/internal/claimRun.ts",
      from: "const [settlement, next] = yield* Effect.zip(",
      to: "yield* claim.record({ now: heldAt, published: rows.map(({ id }) => ({ id, version: 1 as never })) })\n        const [settlement, next] = yield* Effect.zip("
    }
  ],
  "no-message-id": [noMessageId],
  "no-look-back": [
    {
      file: "src/jetstream/JetStreamSink.ts",
      from: "yield* lookBack.find(target.stream, batch)",
      to: "nothingKnown"
    }
  ],
  "no-expected-sequence": [noExpectedSequence],
  "no-order-in-key": [
    {
      file: "src/jetstream/internal/publishing.ts",
      from: "const keys = byKey(batch.events).map(publishKey)",
      to: "const keys = byKey(batch.events).flatMap((key) => key.map((event) => [event])).reverse().map(publishKey)"
    }
  ]
}
