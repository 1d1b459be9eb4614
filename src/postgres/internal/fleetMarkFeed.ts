import { quote } from "./names.js"

/**
 * Migration 2: a mark knows the feed that its control version belongs to. Older marks keep NULL, as nothing tells which
 * feed they are of: pruning leaves them until their event comes again, and a start from a snapshot removes them.
 */
export const markFeed = (schema: string): string => `
ALTER TABLE ${quote(schema)}.applied_events ADD COLUMN feed text;
`
