/**
 * What tests of an application need: an outbox and a sink in memory, and the laws that every sink keeps.
 *
 * @since 1.0.0
 */
export * as MemoryOutboxAdmin from "./MemoryOutboxAdmin.js"
export * as MemoryOutboxStore from "./MemoryOutboxStore.js"
export * as MemorySink from "./MemorySink.js"
export * as SinkConformance from "./SinkConformance.js"
