import { Layer } from "effect"
import { PostgresOutboxAdmin } from "../../src/postgres/index.js"
import { outboxAdminSuite } from "../support/outboxAdminSuite.js"
import { layerClient, layerOutbox } from "../support/postgres.js"

// A name that breaks every statement that forgets to quote it.
const schema = `An "odd" $$schema$$.name's`

outboxAdminSuite("OutboxAdmin in PostgreSQL", () =>
  PostgresOutboxAdmin.layer({ schema }).pipe(Layer.provideMerge(layerOutbox(schema)), Layer.provide(layerClient))
)
