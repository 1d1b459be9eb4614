import type { AppliedEventsError } from "../AppliedEvents.js"
import type { ArtifactError } from "../ArtifactStore.js"
import type { HandleError } from "../Handlers.js"
import type { FeedEvent, SourceError } from "../Source.js"

/** Why an applier cannot continue. */
export type ApplierError = SourceError | AppliedEventsError | ArtifactError | HandleError

/** Why a pass ended, and at which event where it was one. */
export class Halt {
  readonly event: FeedEvent | undefined
  readonly error: ApplierError
  constructor(event: FeedEvent | undefined, error: ApplierError) {
    this.event = event
    this.error = error
  }
}
