"""The third reading of the signature, against PROTOCOL.md's vectors."""

import hashlib

import pytest

from landfall_local.token import canonical_request, sign

VECTORS = [
    ("GET", "", "", "c88caad15a1c1a900b8ac08aa9686f4e8184539bea1deda36e2f649430df3239"),
    ("GET", "/", "param=foo", "557b49d80f3f963f6bec47b74d9832d8d601d6ed0979476bdb35bae4abafb0a4"),
    ("POST", "/user", "", "18f9496a296abb418647d87857700529a1f4b2d18b4c1cfa77bbebdeeda6f068"),
    (
        "GET",
        "/path/to/service",
        "zee_last=param&repeated=parameter%201&first=param&repeated=parameter%202",
        "e52bb281606c3bd9ca16cfe96fe2df78f5d9ffa126f06befd750dfa10fa1a897",
    ),
    ("POST", "/migration/webhook", "", "f1cac0b6061ad061675e976c2c2827c3675a18f48bf8f6258c7ac615d76b3653"),
    ("POST", "/migration/webhook/", "version=1", "32d97a65775da703c30fb9f015bce9dca2f6d581b7c3ef79dc946d38b88bb7bb"),
    ("GET", "/x", "a=*~'()!&b=a+b&c=%20&d=%2B&e=%C3%A9", "d8857bfe48942cedf90637484080e30e89a78f7cf543b9ddd48d7e4307061d9b"),
    ("GET", "/a&b/c", "x=y", "7b95a18071ff388edd7d9ce4d42c339fb16c5fc3ca9e3f14f8e9d2156c3ff562"),
    ("GET", "/x", "jwt=abc&b=2&a=1&A=0", "e241d034e126c6edf6f832559eda543348d401e0bf55047fdb3e3b4c1da28109"),
    ("GET", "/x", "empty=&noval", "29ddc3f43b76a911849f69e04151d348b0e92ad91ade742148699be81c675ae6"),
    ("GET", "/x", "b=2&b=10&b=1", "37542eb85450060f0e77af1e4073178e718cf6f5fe11e648e268d601258af0f2"),
]


@pytest.mark.parametrize(("method", "path", "query", "digest"), VECTORS)
def test_the_query_string_hash_is_the_protocols(method, path, query, digest):
    assert hashlib.sha256(canonical_request(method, path, query).encode()).hexdigest() == digest


def test_a_token_carries_the_protocols_claims_and_signature():
    token = sign("example-shared-secret", "unique-client-key-0001", "POST", "/migration/webhook", now=1600000000)
    assert token == (
        "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJ1bmlxdWUtY2xpZW50LWtleS0wMDAxIiwiaWF0IjoxNjAwMDAwMDAwLCJleHAiOjE2MDAwM"
        "DAxODAsInFzaCI6ImYxY2FjMGI2MDYxYWQwNjE2NzVlOTc2YzJjMjgyN2MzNjc1YTE4ZjQ4YmY4ZjYyNThjN2FjNjE1ZDc2YjM2NTMifQ"
        ".Y90cNgV2AT_ZycFy9DrszGHP0qbZRSql0LSxLOru40k"
    )
