/** What HttpApi writes into the document by itself, and this API never answers: see `answers.ts`. */

const decodeError = "#/components/schemas/HttpApiDecodeError"

interface Reference {
  readonly $ref?: string
  readonly anyOf?: ReadonlyArray<Reference>
}

interface Operation {
  readonly responses: Record<string, { content?: Record<string, { schema: Reference }> }>
}

interface Document {
  readonly paths?: Record<string, Record<string, Operation>>
  readonly components?: { readonly schemas?: Record<string, unknown> }
}

/** Bad input is a BadRequest, and nothing else. */
export const withoutDecodeErrors = (document: Record<string, unknown>): Record<string, unknown> => {
  const { components, paths = {} } = document as Document
  for (const { responses } of Object.values(paths).flatMap((operations) => Object.values(operations))) {
    const media = responses["400"]?.content?.["application/json"]
    if (media === undefined) continue
    const rest = (media.schema.anyOf ?? [media.schema]).filter(({ $ref }) => $ref !== decodeError)
    if (rest.length === 0) delete responses["400"]
    else media.schema = rest.length === 1 ? rest[0]! : { anyOf: rest }
  }
  for (const name of ["HttpApiDecodeError", "Issue", "PropertyKey"]) delete components?.schemas?.[name]
  return document
}
