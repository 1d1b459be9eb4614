/**
 * All settings of the service, by group, in the order of `--help` and of the reference page.
 *
 * @since 0.1.0
 */
import * as AdminSettings from "../admin/AdminSettings.js"
import * as FileSettings from "../file/FileSettings.js"
import * as JetStreamSettings from "../jetstream/JetStreamSettings.js"
import * as DatabaseSettings from "../postgres/DatabaseSettings.js"
import * as PumpSettings from "../PumpSettings.js"
import type * as Setting from "../Setting.js"
import * as FeedSettings from "./FeedSettings.js"
import * as LogSettings from "./LogSettings.js"
import * as TelemetrySettings from "./TelemetrySettings.js"

/**
 * All settings of the command line, in the order of docs/configuration.md.
 *
 * @since 0.1.0
 * @category declarations
 */
export const groups: ReadonlyArray<Setting.Group> = [
  DatabaseSettings.group,
  FeedSettings.sinkGroup,
  FileSettings.sinkGroup,
  FeedSettings.sourceGroup,
  FileSettings.sourceGroup,
  JetStreamSettings.feedGroup,
  JetStreamSettings.sinkGroup,
  PumpSettings.group,
  PumpSettings.retentionGroup,
  FeedSettings.nodeGroup,
  FileSettings.artifactGroup,
  AdminSettings.serverGroup,
  AdminSettings.clientGroup,
  LogSettings.group,
  TelemetrySettings.group
]
