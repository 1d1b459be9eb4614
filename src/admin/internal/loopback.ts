/** Addresses that lead to this machine and can be reached from nowhere else. */

/** A `Host` header: a name or an address, an IPv6 one in brackets, and maybe a port. */
export const isLoopbackHeader = (host: string): boolean =>
  /^(localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])(:\d+)?$/i.test(host)

/** A name or an address to listen on. */
export const isLoopback = (host: string): boolean => isLoopbackHeader(host.includes(":") ? `[${host}]` : host)
