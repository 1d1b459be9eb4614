/**
 * What people and monitoring see of an outbox: admin API, dashboard, status, metrics.
 *
 * @since 0.1.0
 */
export * as AdminApi from "./AdminApi.js"
export * as AdminApp from "./AdminApp.js"
export * as AdminServer from "./AdminServer.js"
export * as AdminSettings from "./AdminSettings.js"
export * as Dashboard from "./Dashboard.js"
export * as NodeView from "./NodeView.js"
export * as NoOutbox from "./NoOutbox.js"
export * as Prometheus from "./Prometheus.js"
export * as PumpReports from "./PumpReports.js"
export * as StatusBoard from "./StatusBoard.js"
export * as Tokens from "./Tokens.js"
