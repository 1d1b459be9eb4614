/** The code of a platform error, such as `ENOENT`. */
export const codeOf = (error: unknown): string | undefined => (error as { readonly code?: string }).code
