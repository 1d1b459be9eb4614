/**
 * A transactional outbox for Effect.
 *
 * @since 0.1.0
 */
export * as ControlEvent from "./ControlEvent.js"
export * as ControlVersion from "./ControlVersion.js"
export * as EventId from "./EventId.js"
export * as EventType from "./EventType.js"
export * as FeedBound from "./FeedBound.js"
export * as Lane from "./Lane.js"
export * as OrderingKey from "./OrderingKey.js"
export * as Outbox from "./Outbox.js"
export * as OutboxAdmin from "./OutboxAdmin.js"
export * as OutboxStore from "./OutboxStore.js"
export * as Pump from "./Pump.js"
export * as PumpConfig from "./PumpConfig.js"
export * as PumpMetrics from "./PumpMetrics.js"
export * as PumpSettings from "./PumpSettings.js"
export * as PumpStatus from "./PumpStatus.js"
export * as Retention from "./Retention.js"
export * as Setting from "./Setting.js"
export * as Sink from "./Sink.js"
export * as TypedOutbox from "./TypedOutbox.js"
export * as WakeUp from "./WakeUp.js"
