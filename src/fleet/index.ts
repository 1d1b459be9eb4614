/**
 * The nodes of a fleet: reading the feed, and applying every event exactly once.
 *
 * @since 0.1.0
 */
export * as Applier from "./Applier.js"
export * as ApplierMetrics from "./ApplierMetrics.js"
export * as ApplierStatus from "./ApplierStatus.js"
export * as AppliedEvents from "./AppliedEvents.js"
export * as Artifacts from "./Artifacts.js"
export * as ArtifactStore from "./ArtifactStore.js"
export * as Fleet from "./Fleet.js"
export * as FleetViews from "./FleetViews.js"
export * as Handlers from "./Handlers.js"
export * as NodeRegistry from "./NodeRegistry.js"
export * as NodeReport from "./NodeReport.js"
export * as NodeReporting from "./NodeReporting.js"
export * as NodeReports from "./NodeReports.js"
export * as Refresh from "./Refresh.js"
export * as Snapshot from "./Snapshot.js"
export * as Source from "./Source.js"
