/**
 * How the sink and the source reach the NATS servers.
 *
 * @since 0.1.0
 */
import type * as Redacted from "effect/Redacted"

/**
 * How to reach the servers.
 *
 * @since 0.1.0
 * @category models
 */
export interface Connection {
  /** `host:port`, `nats://host:port` or `tls://host:port`. The client connects to one of them. */
  readonly servers: ReadonlyArray<string>
  readonly credentials?: Credentials | undefined
  /** A private certificate authority, and a client certificate for servers that require one. */
  readonly tls?: Tls | undefined
}

/**
 * How the client authenticates: by token, by user and password, or by creds file.
 *
 * @since 0.1.0
 * @category models
 */
export type Credentials =
  | { readonly _tag: "token"; readonly token: Redacted.Redacted }
  | { readonly _tag: "password"; readonly user: string; readonly password: Redacted.Redacted }
  /** The contents of a creds file: a user JWT and its seed. */
  | { readonly _tag: "creds"; readonly creds: Redacted.Redacted }

/**
 * The files for TLS, as paths of PEM files.
 *
 * @since 0.1.0
 * @category models
 */
export interface Tls {
  readonly caFile?: string | undefined
  readonly certFile?: string | undefined
  readonly keyFile?: string | undefined
}
