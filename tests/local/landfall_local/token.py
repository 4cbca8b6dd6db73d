"""Signing an event by hand: a Connect JWT as the platform makes it (HS256, qsh), in plain Python.

A third reading of the protocol beside shared/platform and the twin, and short enough to be copied into any test client.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import urllib.parse


def canonical_request(method: str, path: str, query: str = "") -> str:
    """The text whose digest is the qsh; `path` is relative to the receiver's base URL."""
    path = path.replace("&", "%26") or "/"
    if path != "/":
        path = path.rstrip("/") or "/"
    parameters: dict[str, list[str]] = {}
    for name, value in urllib.parse.parse_qsl(query, keep_blank_values=True):
        if name != "jwt":
            parameters.setdefault(name, []).append(value)
    quoted = [
        f"{_quote(name)}={','.join(_quote(value) for value in sorted(values))}" for name, values in sorted(parameters.items())
    ]
    return f"{method.upper()}&{path}&{'&'.join(quoted)}"


def _quote(text: str) -> str:
    return urllib.parse.quote(text, safe="-._~")


def sign(secret: str, client_key: str, method: str, path: str, query: str = "", now: float | None = None, **claims) -> str:
    """A token for one request; it lives for three minutes, as the platform's do."""
    now = int(time.time() if now is None else now)
    digest = hashlib.sha256(canonical_request(method, path, query).encode()).hexdigest()
    payload = {"iss": client_key, "iat": now, "exp": now + 180, "qsh": digest} | claims
    signed = f"{_encode({'typ': 'JWT', 'alg': 'HS256'})}.{_encode(payload)}"
    signature = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{_base64(signature)}"


def _encode(value: dict) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
