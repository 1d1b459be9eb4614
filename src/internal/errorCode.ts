/** The code of an error of the platform's, as `ENOENT`. */
export const codeOf = (error: unknown): string | undefined => (error as { readonly code?: string }).code
