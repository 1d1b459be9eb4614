import { quote } from "./names.js"

/**
 * Migration 2: a mark has the feed of its control version. Older marks keep NULL, because their feed is unknown:
 * pruning leaves them until their event comes again, and a start from a snapshot removes them.
 */
export const markFeed = (schema: string): string => `
ALTER TABLE ${quote(schema)}.applied_events ADD COLUMN feed text;
`
