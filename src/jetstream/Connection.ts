/**
 * How the sink and the source reach the NATS servers.
 *
 * @since 1.0.0
 */
import type * as Redacted from "effect/Redacted"

/**
 * How to reach the servers.
 *
 * @since 1.0.0
 * @category models
 */
export interface Connection {
  /** `host:port`, `nats://host:port` or `tls://host:port`, any of which will do. */
  readonly servers: ReadonlyArray<string>
  readonly credentials?: Credentials | undefined
  /** PEM files. A certificate authority of one's own, and a certificate for servers that ask for one. */
  readonly tls?: Tls | undefined
}

/**
 * How the client proves who it is: one way of three.
 *
 * @since 1.0.0
 * @category models
 */
export type Credentials =
  | { readonly _tag: "token"; readonly token: Redacted.Redacted }
  | { readonly _tag: "password"; readonly user: string; readonly password: Redacted.Redacted }
  /** The contents of a creds file: a user JWT and its seed. */
  | { readonly _tag: "creds"; readonly creds: Redacted.Redacted }

/**
 * The files for TLS, as paths to PEM.
 *
 * @since 1.0.0
 * @category models
 */
export interface Tls {
  readonly caFile?: string | undefined
  readonly certFile?: string | undefined
  readonly keyFile?: string | undefined
}
