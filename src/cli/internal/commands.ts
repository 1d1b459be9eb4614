/** The commands, in the order of the help. */
import * as Append from "../commands/append.js"
import * as Apply from "../commands/apply.js"
import * as Audit from "../commands/audit.js"
import * as Discard from "../commands/discard.js"
import * as Erase from "../commands/erase.js"
import * as Events from "../commands/events.js"
import * as Migrate from "../commands/migrate.js"
import * as Park from "../commands/park.js"
import * as Pause from "../commands/pause.js"
import * as Prune from "../commands/prune.js"
import * as Redrive from "../commands/redrive.js"
import * as Resume from "../commands/resume.js"
import * as Serve from "../commands/serve.js"
import * as Show from "../commands/show.js"
import * as Status from "../commands/status.js"
import * as Tail from "../commands/tail.js"

export const entries = [
  { name: "serve", summary: "Publish events until stopped", command: Serve.command },
  { name: "append", summary: "Append one event, or events from a file", command: Append.command },
  { name: "migrate", summary: "Create or upgrade the outbox", command: Migrate.command },
  { name: "status", summary: "Show health, pumps, backlog and parked events", command: Status.command },
  { name: "apply", summary: "Apply the feed to a database until stopped", command: Apply.command },
  { name: "tail", summary: "Show the feed", command: Tail.command },
  { name: "events", summary: "List events", command: Events.command },
  { name: "show", summary: "Show one event with its payload and failed attempts", command: Show.command },
  { name: "redrive", summary: "Make parked events pending again", command: Redrive.command },
  { name: "park", summary: "Park a pending event", command: Park.command },
  { name: "discard", summary: "Permanently remove an unpublished event", command: Discard.command },
  { name: "erase", summary: "Erase the payload of a published event", command: Erase.command },
  { name: "prune", summary: "Remove published events that the retention does not keep", command: Prune.command },
  { name: "audit", summary: "Show the audit log", command: Audit.command },
  { name: "pause", summary: "Pause the pump of a running service", command: Pause.command },
  { name: "resume", summary: "Resume the pump of a running service", command: Resume.command }
] as const
