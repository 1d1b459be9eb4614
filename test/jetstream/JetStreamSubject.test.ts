import { assert, describe, it } from "@effect/vitest"
import { Either, FastCheck as fc } from "effect"
import { EventId, OrderingKey, type Sink } from "../../src/index.js"
import { headerValue } from "../../src/jetstream/internal/message.js"
import * as Subject from "../../src/jetstream/internal/subject.js"

const event = (fields: { type?: string; tenant?: string; id?: string; key?: string }): Sink.OutboundEvent => {
  const eventId = EventId.make(fields.id ?? "e1")
  return {
    eventId,
    orderingKey: OrderingKey.make(fields.key ?? "k"),
    event: {
      event_id: eventId,
      type: fields.type ?? "tenant.created",
      ...(fields.tenant === undefined ? {} : { tenant_id: fields.tenant })
    },
    payload: "{}",
    traceparent: undefined,
    createdAt: 0,
    attemptCount: 0
  }
}

const subjectOf = (template: string, fields: Parameters<typeof event>[0]) =>
  Either.getOrThrow(Subject.parse(template)).subjectOf(event(fields))

const token = fc.constantFrom("a", "b", "*", ">")
const pattern = fc
  .array(token, { minLength: 1, maxLength: 4 })
  .map((tokens) => tokens.slice(0, tokens.includes(">") ? tokens.indexOf(">") + 1 : tokens.length).join("."))

/** All subjects of up to five tokens `a` and `b` and `c`. */
const subjects = (() => {
  const all: Array<string> = []
  let last = [""]
  for (let length = 1; length <= 5; length++) {
    last = last.flatMap((prefix) => ["a", "b", "c"].map((part) => (prefix === "" ? part : `${prefix}.${part}`)))
    all.push(...last)
  }
  return all
})()

const matching = (pattern: string) => {
  const expression = new RegExp(
    `^${pattern.replaceAll(".", "\\.").replaceAll("*", "[^.]+").replace(">", "[^.]+(\\.[^.]+)*")}$`
  )
  return new Set(subjects.filter((subject) => expression.test(subject)))
}

describe("subjects of JetStream", () => {
  it("encode a lone surrogate, which is valid JSON", () => {
    assert.strictEqual(
      subjectOf("c.{type}.{tenant_id}", { type: "a.\ud800", tenant: "\udc00x" }),
      "c.a.%EF%BF%BD.%EF%BF%BDx"
    )
  })

  it("puts fields into a template", () => {
    assert.strictEqual(
      subjectOf("control.events.{type}", { type: "stack.activated" }),
      "control.events.stack.activated"
    )
    assert.strictEqual(subjectOf("c.{tenant_id}.{type}.x", { tenant: "t-1_A" }), "c.t-1_A.tenant.created.x")
    assert.strictEqual(subjectOf("c.{tenant_id}.{stack_id}", {}), "c.-.-")
    assert.strictEqual(subjectOf("c.x{tenant_id}y", { tenant: "1" }), "c.x1y")
    assert.strictEqual(subjectOf("c.{ordering_key}", { key: "" }), "c.-")
  })

  it("encodes characters that are invalid in a token", () => {
    assert.strictEqual(subjectOf("c.{tenant_id}", { tenant: "a.b *>é\n" }), "c.a%2Eb%20%2A%3E%C3%A9%0A")
    assert.strictEqual(subjectOf("c.{type}", { type: "a..b" }), "c.a%2E%2Eb")
    assert.strictEqual(subjectOf("c.{type}", { type: "$JS.*" }), "c.%24JS.%2A")
  })

  it.prop(
    "gives each id a token of its own",
    [fc.uniqueArray(fc.string({ unit: "binary", minLength: 1 }), { minLength: 2 })],
    ([ids]) => {
      const valid = ids.filter((id) => id.isWellFormed() && !id.includes("\0") && Buffer.byteLength(id) <= 1024)
      const tokens = valid.map((id) => subjectOf("c.{event_id}", { id }))
      assert.strictEqual(new Set(tokens).size, valid.length)
      for (const subject of tokens) assert.match(subject, /^c\.[\w%-]{1,65}$/)
    }
  )

  it.prop(
    "encodes headers so that each value stays one line and its own",
    [fc.string({ unit: "binary" }), fc.string({ unit: "binary" })],
    ([one, other]) => {
      assert.match(headerValue(one), /^[!-~]*$/)
      assert.strictEqual(headerValue(one) === headerValue(other), Buffer.from(one).equals(Buffer.from(other)))
      assert.strictEqual(
        Buffer.from(decodeURIComponent(headerValue(one.toWellFormed()))).toString(),
        one.toWellFormed()
      )
    }
  )

  it("reports why a template is invalid", () => {
    const reason = (template: string) => Either.getOrElse(Either.flip(Subject.parse(template)), () => "valid")
    assert.match(reason("c.{tenant}"), /^\{tenant\} is not one of \{type\}, /)
    for (const bad of ["", ".", "a..b", "a.", ".a", "a b", "a.*", "a.>", "a.{type", "a.}", "a\n"]) {
      assert.match(reason(bad), /^a subject is a list of tokens/, bad)
    }
  })

  it("knows the pattern of a template", () => {
    const patternOf = (template: string) => Either.getOrThrow(Subject.parse(template)).pattern
    assert.strictEqual(patternOf("control.events.{type}"), "control.events.>")
    assert.strictEqual(patternOf("control.{type}.{event_id}"), "control.>")
    assert.strictEqual(patternOf("a.x{tenant_id}.b.{event_id}"), "a.*.b.*")
  })

  it.prop("tells which subjects a filter covers and overlaps", [pattern, pattern], ([one, other]) => {
    const [left, right] = [matching(one), matching(other)]
    assert.strictEqual(
      Subject.overlaps(one, other),
      [...left].some((subject) => right.has(subject))
    )
    // `*` and `>` stand for more than the subjects that are tried, never for less.
    if (Subject.covers(one, other)) assert.isTrue([...right].every((subject) => left.has(subject)))
    else assert.isFalse([...right].every((subject) => left.has(subject)) && right.size > 0)
  })
})
