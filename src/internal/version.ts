/** The version of this package, as in package.json: a file that a bundle would not have. */
export const version = "0.1.0"
