/**
 * Where control events can be published to.
 *
 * @since 1.0.0
 */
export * as FileSink from "./FileSink.js"
export * as JetStreamSink from "./JetStreamSink.js"
