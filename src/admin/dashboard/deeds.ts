/** The actions of operators, with the texts of their dialogs. */
import type { Count, EventSummary } from "../../OutboxAdmin.js"
import * as Api from "./api.js"
import type { Deed } from "./Dialog.js"
import { describeFilter } from "./Events.js"
import * as Words from "./words.js"

export const pausing: Deed = {
  title: "Pause the pump?",
  explanation:
    "This process's pump finishes the events in flight, then publishes nothing until you resume it or restart the service. Other processes' pumps continue. Appends continue, and the backlog grows.",
  confirm: "Pause",
  dangerous: true,
  run: async (reason) => {
    await Api.switchPump("pause", reason)
    return "The pump is paused."
  }
}

export const resuming: Deed = {
  title: "Resume the pump?",
  explanation: "The pump publishes the pending events, in order per key.",
  confirm: "Resume",
  run: async (reason) => {
    await Api.switchPump("resume", reason)
    return "The pump is resumed."
  }
}

export const pruning = (retention: string): Deed => ({
  title: "Run retention now?",
  explanation: `Removes published events that the retention (${retention}) does not keep. Pending, waiting and parked events always stay.`,
  confirm: "Run retention",
  run: async (reason) => `Retention removed ${Words.plural((await Api.prune(reason)).affected, "published event")}.`
})

const mendings: Record<Api.Mending, Omit<Deed, "run"> & { readonly done: string }> = {
  redrive: {
    title: "Redrive this event?",
    explanation: "The event becomes pending again, in its old place, with no attempts counted. Fix the cause first.",
    confirm: "Redrive",
    done: "The event is pending again."
  },
  park: {
    title: "Park this event?",
    explanation: "The event is not published until it is redriven.",
    confirm: "Park",
    dangerous: true,
    done: "The event is parked."
  },
  discard: {
    title: "Discard this event?",
    explanation:
      "The event leaves the outbox and is never published. Only the audit log keeps it. This cannot be undone.",
    confirm: "Discard",
    dangerous: true,
    done: "The event is discarded."
  }
}

export const mending = (what: Api.Mending, { eventId, type }: EventSummary): Deed => {
  const { done, explanation, ...words } = mendings[what]
  return {
    ...words,
    explanation: `${type} ${eventId}. ${explanation}`,
    run: async (reason) => {
      await Api.mend(what, eventId, reason)
      return done
    }
  }
}

export const erasing = ({ eventId, type }: EventSummary): Deed => ({
  title: "Erase this payload?",
  explanation: `${type} ${eventId}. A marker replaces the payload in the outbox. The feed and the nodes still have it. This cannot be undone.`,
  confirm: "Erase",
  dangerous: true,
  run: async (reason) => ["The payload is erased.", ...(await Api.erase(eventId, reason))].join(" ")
})

export const redrivingAll = (filter: Api.Filter, parked: typeof Count.Type | undefined): Deed => {
  const which = describeFilter(filter)
  const all = parked === undefined ? "all parked events" : `all ${Words.count(parked)} parked events`
  return {
    title: which === "" ? `Redrive ${all}?` : "Redrive the filtered parked events?",
    explanation: `${which === "" ? "They become" : `The parked events with ${which} become`} pending again, in their old places, with no attempts counted. Fix the cause first.`,
    confirm: "Redrive",
    run: async (reason) => `Pending again: ${Words.plural((await Api.redrive(filter, reason)).affected, "event")}.`
  }
}
