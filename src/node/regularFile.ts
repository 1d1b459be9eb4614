/**
 * Opens files in places where others may have put something else: a named pipe, on which an open waits forever, a
 * symbolic link to another user's file, a device, or a sparse file that exceeds the memory.
 */
import { constants, type Stats } from "node:fs"
import * as Fs from "node:fs/promises"

/** Something in the place of a file cannot be read as a file. */
export class FileRefused extends Error {
  constructor(
    /** The code of the operating system if it has one, else `ENOTREG`. */
    readonly code: "EISDIR" | "ELOOP" | "EFBIG" | "ENOTREG",
    message: string
  ) {
    super(message)
  }
}

export interface Options {
  /** The largest size in bytes. */
  readonly maxBytes: number
  /** Whether a symbolic link is followed. Links in the directories above always are. */
  readonly followLink: boolean
}

export interface OpenFile {
  readonly handle: Fs.FileHandle
  readonly stats: Stats
}

// Not on every platform.
const nonBlocking = (constants.O_NONBLOCK as number | undefined) ?? 0
const noFollow = (constants.O_NOFOLLOW as number | undefined) ?? 0

const kindOf = (stats: Stats): string => {
  if (stats.isFIFO()) return "a named pipe"
  if (stats.isSocket()) return "a socket"
  return stats.isBlockDevice() || stats.isCharacterDevice() ? "a device" : "something else"
}

const refusal = (stats: Stats, maxBytes: number): FileRefused | undefined => {
  if (stats.isDirectory()) return new FileRefused("EISDIR", "EISDIR: illegal operation on a directory")
  if (!stats.isFile()) return new FileRefused("ENOTREG", `it is ${kindOf(stats)} instead of a regular file`)
  return stats.size > maxBytes
    ? new FileRefused("EFBIG", `it has ${stats.size} bytes and the maximum is ${maxBytes}`)
    : undefined
}

/** Opens a regular file for reading. Never waits. */
export const open = async (path: string, { followLink, maxBytes }: Options): Promise<OpenFile> => {
  const flags = constants.O_RDONLY | nonBlocking | (followLink ? 0 : noFollow)
  const handle = await Fs.open(path, flags).catch((error: unknown) => {
    const code = error instanceof Error && "code" in error ? error.code : undefined
    if (code === "ELOOP" && !followLink) {
      throw new FileRefused("ELOOP", "it is a symbolic link instead of a regular file")
    }
    // The error of a socket.
    throw code === "ENXIO" ? new FileRefused("ENOTREG", "it is a socket or a device instead of a regular file") : error
  })
  try {
    const stats = await handle.stat()
    const refused = refusal(stats, maxBytes)
    if (refused !== undefined) throw refused
    return { handle, stats }
  } catch (error) {
    await handle.close()
    throw error
  }
}

/** Reads the contents that a file had when it was opened. */
export const contents = async ({ handle, stats: { size } }: OpenFile): Promise<Buffer> => {
  const buffer = Buffer.allocUnsafe(size)
  let length = 0
  while (length < size) {
    const { bytesRead } = await handle.read(buffer, length, size - length, length)
    if (bytesRead === 0) break
    length += bytesRead
  }
  return buffer.subarray(0, length)
}

/** The largest file that a setting may name, in bytes. */
const maxSettingBytes = 1024 * 1024

/** Reads a small text file that a setting names. Follows links, because secrets are mounted as links. */
export const readSetting = async (path: string): Promise<string> => {
  const file = await open(path, { maxBytes: maxSettingBytes, followLink: true })
  try {
    return (await contents(file)).toString("utf8")
  } finally {
    await file.handle.close()
  }
}

/**
 * Creates a file and returns its handle. Fails if the name exists, even as a link. The file gets the mode whatever the
 * umask of the process is.
 */
export const create = async (path: string, mode: number): Promise<Fs.FileHandle> => {
  const handle = await Fs.open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | noFollow, mode)
  try {
    if ((mode & 0o077) !== 0) await handle.chmod(mode)
    return handle
  } catch (error) {
    await handle.close()
    throw error
  }
}
