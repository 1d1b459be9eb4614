/**
 * The feed and its artifacts as files in a directory: sink, source and artifact store.
 *
 * @since 0.1.0
 */
export * as FileArtifactStore from "./FileArtifactStore.js"
export * as FileRefreshPosition from "./FileRefreshPosition.js"
export * as FileSettings from "./FileSettings.js"
export * as FileSink from "./FileSink.js"
export * as FileSource from "./FileSource.js"
