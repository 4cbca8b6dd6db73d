"""Who sent a webhook: the JWT of Atlassian Connect, with PyJWT and the request's hash from Atlassian's own package.

The Authenticator of that package is not used: it takes a token without `exp`, and makes a class of its own for every call.
"""

from __future__ import annotations

import jwt
from atlassian_jwt.url_utils import hash_url

import storage
from upload import is_identity

LEEWAY_SECONDS = 60


class Unauthorized(Exception):
    """The token does not hold."""


def sender(authorization: str | None, method: str, path: str, query: str, now: int) -> str:
    """The client key of the tenant that signed this request. `path` is below the base URL's."""
    scheme, _, token = (authorization or "").strip().partition(" ")
    token = token.strip()
    if scheme.upper() != "JWT" or not token:
        raise Unauthorized("no token")
    try:
        # Unverified: it only says whose secret to verify it with.
        client_key = jwt.decode(token, options={"verify_signature": False}).get("iss")
        if not isinstance(client_key, str) or not is_identity(client_key):
            raise Unauthorized("the token names no client key")
        tenant = storage.find_tenant(client_key, now)
        if tenant is None or not tenant.installed:
            raise Unauthorized("the token names no tenant that has the app installed")
        claims = jwt.decode(
            token,
            tenant.secret,
            algorithms=["HS256"],
            leeway=LEEWAY_SECONDS,
            # Who it is meant for is in its hash; `iat` is checked where it is there.
            options={"require": ["iss", "exp", "qsh"], "verify_aud": False},
        )
    except jwt.InvalidTokenError as error:
        raise Unauthorized(str(error)) from None
    if claims["qsh"] != hash_url(method, f"{path}?{query}" if query else path):
        raise Unauthorized("query hash of another request")
    return client_key
