import { readdir, readFile } from "node:fs/promises"
import type * as Pg from "pg"

/** Clock ticks a second of /proc: a constant of the kernel's interface. */
const ticks = 100

/** The fields of `/proc/<pid>/stat` behind the name, which may hold spaces. */
const statOf = async (pid: string): Promise<ReadonlyArray<string>> => {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8")
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ")
}

/** Milliseconds of CPU that a living process has used. The scheduler counts nanoseconds, `stat` in ticks of 10 ms. */
const usedBy = async (pid: string, stat: ReadonlyArray<string>): Promise<number> => {
  try {
    return Number((await readFile(`/proc/${pid}/schedstat`, "utf8")).split(" ")[0]) / 1e6
  } catch {
    return ((Number(stat[11]) + Number(stat[12])) * 1_000) / ticks
  }
}

/**
 * Milliseconds of CPU that all processes of a PostgreSQL server have used: the postmaster, its children, and those of its
 * children that have ended. Linux, and a server on this machine.
 */
export const serverCpu = async (postmaster: string): Promise<number> => {
  const own = await statOf(postmaster)
  let used = (await usedBy(postmaster, own)) + ((Number(own[13]) + Number(own[14])) * 1_000) / ticks
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    try {
      const stat = await statOf(pid)
      if (stat[1] === postmaster) used += await usedBy(pid, stat)
    } catch {
      // It ended meanwhile: its parent's sum has it from then on.
    }
  }
  return used
}

/** The postmaster of the server that a superuser is connected to. */
export const postmasterOf = async (client: Pg.Client): Promise<string> => {
  const { rows } = await client.query<{ pid: string }>(
    "SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1) AS pid"
  )
  return rows[0]!.pid
}
