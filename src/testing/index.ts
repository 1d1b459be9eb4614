/**
 * What tests of an application need: an outbox with its administration, a sink, a source and a node's marks in memory,
 * and the laws of sinks and sources.
 *
 * @since 0.1.0
 */
export * as MemoryAppliedEvents from "./MemoryAppliedEvents.js"
export * as MemoryNodeRegistry from "./MemoryNodeRegistry.js"
export * as MemoryOutboxAdmin from "./MemoryOutboxAdmin.js"
export * as MemoryOutboxStore from "./MemoryOutboxStore.js"
export * as MemorySink from "./MemorySink.js"
export * as MemorySource from "./MemorySource.js"
export * as SinkConformance from "./SinkConformance.js"
export * as SourceConformance from "./SourceConformance.js"
