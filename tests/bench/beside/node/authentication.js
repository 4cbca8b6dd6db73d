// Who sent a webhook: the JWT of Atlassian Connect, with the library that Atlassian publishes for it.

import { createQueryStringHash, decodeSymmetric, fromMethodAndUrl, SymmetricAlgorithm } from "atlassian-jwt";
import { findTenant } from "./storage.js";
import { IDENTITY } from "./upload.js";

const LEEWAY_SECONDS = 60;

export class Unauthorized extends Error {}

/** The client key of the tenant that signed this request; throws `Unauthorized` when none is proven. `path` is below the base URL's. */
export async function sender(authorization, method, path, query, now) {
  const [scheme, token] = (authorization ?? "").trim().split(/ +/);
  if (scheme.toUpperCase() !== "JWT" || !token) {
    throw new Unauthorized("no token");
  }
  // Unverified: it only says whose secret to verify it with.
  const clientKey = decode(token, "", true).iss;
  if (typeof clientKey !== "string" || !IDENTITY.test(clientKey)) {
    throw new Unauthorized("the token names no client key");
  }
  const tenant = await findTenant(clientKey, now);
  if (!tenant?.installed) {
    throw new Unauthorized("the token names no tenant that has the app installed");
  }
  checkClaims(decode(token, tenant.secret, false), method, path, query, now);
  return clientKey;
}

function decode(token, secret, withoutVerification) {
  try {
    return decodeSymmetric(token, secret, SymmetricAlgorithm.HS256, withoutVerification);
  } catch {
    // The library's own message quotes the token, which belongs in no log.
    throw new Unauthorized(withoutVerification ? "not a token that can be read" : "signature of another secret");
  }
}

// The library checks the signature and makes the hash; when a token is good, and for what, is left to its caller.
function checkClaims(claims, method, path, query, now) {
  const seconds = Math.floor(now / 1000);
  if (!Number.isFinite(claims.exp) || seconds > claims.exp + LEEWAY_SECONDS) {
    throw new Unauthorized("expired");
  }
  if (claims.iat !== undefined && !(claims.iat <= seconds + LEEWAY_SECONDS)) {
    throw new Unauthorized("issued in the future");
  }
  const request = fromMethodAndUrl(method, query ? `${path}?${query}` : path);
  if (claims.qsh !== createQueryStringHash(request)) {
    throw new Unauthorized("query hash of another request");
  }
}
