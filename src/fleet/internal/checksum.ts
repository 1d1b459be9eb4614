import { createHash } from "node:crypto"

const digest = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")

export const checksumOf = (bytes: Uint8Array): string => `sha256:${digest(bytes)}`

/** Named by the contents, the first two digits separate, so that directories stay small. */
export const referenceOf = (bytes: Uint8Array): { readonly artifact_ref: string; readonly checksum: string } => {
  const hex = digest(bytes)
  return { artifact_ref: `sha256/${hex.slice(0, 2)}/${hex.slice(2)}`, checksum: `sha256:${hex}` }
}
