/**
 * The feed as a stream of NATS JetStream: sink and source.
 *
 * @since 0.1.0
 */
export * as Connection from "./Connection.js"
export * as JetStreamSettings from "./JetStreamSettings.js"
export * as JetStreamSink from "./JetStreamSink.js"
export * as JetStreamSource from "./JetStreamSource.js"
