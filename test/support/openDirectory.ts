import { chmod, mkdtemp, realpath } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"

/**
 * A temporary directory that other users may enter: an embedded PostgreSQL that root starts runs as one, and would keep its
 * data elsewhere.
 */
export const openDirectory = async (prefix: string): Promise<string> => {
  const directory = await realpath(await mkdtemp(join(tmpdir(), prefix)))
  await chmod(directory, 0o755)
  return directory
}
