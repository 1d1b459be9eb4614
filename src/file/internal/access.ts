/** Who may read what is written. */

/** `owner`: the user that writes · `group`: its group as well · `all`: every user of the machine. */
export type Access = "owner" | "group" | "all"

export interface Modes {
  readonly file: number
  readonly directory: number
}

/** The modes of new files and directories. Only the owner writes. */
export const modesOf = (access: Access = "owner"): Modes => {
  switch (access) {
    case "owner":
      return { file: 0o600, directory: 0o700 }
    case "group":
      return { file: 0o640, directory: 0o750 }
    case "all":
      return { file: 0o644, directory: 0o755 }
  }
}
