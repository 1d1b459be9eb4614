/** Distinguishes a living process from an earlier one with the same pid. */
import * as Fs from "node:fs/promises"

/** A value that the system does not reveal: anything but the pid on systems other than Linux. */
export const untold = "0"

/** Sends a signal, 0 for none, and returns whether the process exists. */
export const signal = (pid: number, name: NodeJS.Signals | 0): boolean => {
  try {
    return process.kill(pid, name)
  } catch (error) {
    // The process exists and belongs to another user.
    return (error as NodeJS.ErrnoException).code === "EPERM"
  }
}

const readOr = (path: string, instead: string): Promise<string> => Fs.readFile(path, "utf8").catch(() => instead)

/**
 * When a process started, in ticks since the boot. `untold` if that is unknown, `undefined` if no such process runs (a
 * zombie does not run).
 */
export const startOf = async (pid: number): Promise<string | undefined> => {
  const stat = await readOr(`/proc/${pid}/stat`, "")
  // Processes of other users can be hidden there.
  if (stat === "") return signal(pid, 0) ? untold : undefined
  // The second field, the command, is in parentheses and may hold anything; the third is the state.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  return fields[0] === "Z" || fields[0] === "X" ? undefined : fields[22 - 3]
}

/** The run of the machine to which pids belong. */
export const boot = async (): Promise<string> => (await readOr("/proc/sys/kernel/random/boot_id", untold)).trim()

/** The namespace of pids: a container has its own. */
export const namespace = async (): Promise<string> =>
  /\d+/.exec(await Fs.readlink("/proc/self/ns/pid").catch(() => untold))?.[0] ?? untold

/** Tells whether two of these values are known to differ. */
export const differ = (one: string, other: string): boolean => one !== other && one !== untold && other !== untold
