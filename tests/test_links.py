"""A link comes from a server's answer; following the wrong one would let it read our network."""

import pytest
from scripted_server import ScriptedServer, answer
from urllib3.connection import HTTPConnection, HTTPSConnection

from pipeline.errors import ConfigError, Refused
from pipeline.providers.http import Pace, file_body
from pipeline.providers.links import LinkPolicy, Origin, resolve, without_query
from pipeline.providers.storage import Cap, Links

PUBLIC = "142.250.185.91"


def policy(base="https://api.fireworks.ai", **names):
    """A policy for *base* in a world where every host is public, unless *names* says otherwise."""
    return LinkPolicy(base, lambda host, port: names.get(host.replace(".", "_"), [PUBLIC]))


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://api.fireworks.ai", "https://storage.googleapis.com/b/BIJOutputSet.jsonl?X-Goog-Signature=ab%2F"),
        ("https://api.fireworks.ai", "HTTPS://Storage.Googleapis.com:443/b"),
        ("https://api.fireworks.ai", "https://api.fireworks.ai/x"),
        ("https://api.fireworks.ai", "https://[2a00:1450:4001:82b::200e]/x"),
        ("http://127.0.0.1:8123", "http://127.0.0.1:8123/signed/abc?X=1"),
        ("http://127.0.0.1:8123", "https://storage.googleapis.com/b"),
        ("http://[::1]:8123", "http://[::1]:8123/x"),
        ("https://batch.intern:8443", "https://BATCH.intern:8443/x"),
    ],
)
def test_links_to_the_providers_own_host_and_to_public_https_are_followed(base, url):
    policy(base).require(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("gs://bucket/file.jsonl", "not a plain http"),
        ("file:///etc/passwd", "not a plain http"),
        ("ftp://storage.googleapis.com/x", "not a plain http"),
        ("//storage.googleapis.com/x", "not a plain http"),
        ("", "not a plain http"),
        ("https://user@storage.googleapis.com/x", "not a plain http"),
        ("https://api.fireworks.ai:secret@evil.example/x", "not a plain http"),
        ("https://storage.googleapis.com\\@evil.example/x", "not a plain http"),
        ("https://storage.googleapis.com/a b", "not a plain http"),
        ("https://storage.googleapis.com/a\r\nHost: evil", "not a plain http"),
        ("https://storage.googleapis.com/a\n", "not a plain http"),
        ("https://stor\u0430ge.googleapis.com/x", "not a plain http"),
        ("http://storage.googleapis.com/x", "not https"),
        ("http://api.fireworks.ai/x", "not https"),
        ("https://storage.googleapis.com:8443/x", "port 8443"),
        ("https://api.fireworks.ai:22/x", "port 22"),
    ],
)
def test_odd_links_are_refused_before_any_name_is_resolved(url, reason):
    def no_resolving(host, port):
        raise AssertionError(f"{host} was resolved")

    with pytest.raises(Refused, match=reason) as caught:
        LinkPolicy("https://api.fireworks.ai", no_resolving).require(url)
    assert caught.value.exit_code == 2
    assert "Next: " in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",  # cloud metadata
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "::",
        "fe80::1%2",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "64:ff9b::a9fe:a9fe",  # NAT64 of 169.254.169.254
        "2002:7f00:1::",  # 6to4 of 127.0.0.1
    ],
)
def test_a_name_with_a_private_address_is_refused_also_when_another_address_is_public(address):
    with pytest.raises(Refused, match="not a public address"):
        policy(evil_example=[PUBLIC, address]).require("https://evil.example/x")


def test_nat64_of_a_public_address_is_public():
    policy(storage_example=["64:ff9b::8efa:b95b"]).require("https://storage.example/x")


@pytest.mark.parametrize("url", ["https://127.0.0.1/x", "https://2130706433/x", "https://0x7f.1/x", "https://[::1]/x"])
def test_addresses_in_any_spelling_are_resolved_before_they_are_judged(url):
    with pytest.raises(Refused, match="not a public address"):
        LinkPolicy("https://api.fireworks.ai").require(url)


def test_only_the_very_base_may_be_private():
    local = LinkPolicy("http://127.0.0.1:8123")
    for url in ("http://127.0.0.1:8124/x", "https://127.0.0.1:8123/x", "http://localhost:8123/x", "https://127.0.0.1/"):
        with pytest.raises(Refused):
            local.require(url)


class PassedBefore(LinkPolicy):
    """The text and the first resolution of the link were fine."""

    def require(self, url):
        pass


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_connection_that_ends_up_elsewhere_is_closed_before_anything_is_sent(tmp_path, monkeypatch, scheme):
    """DNS rebinding: public while it was checked, private when it was connected to."""
    # The server has no certificate: https connects as http does here, and is checked by its own class all the same.
    monkeypatch.setattr(HTTPSConnection, "connect", HTTPConnection.connect)
    with ScriptedServer() as server:
        server.on("GET", "/x", answer(200, b"{}\n"))
        links = Links(PassedBefore("https://api.fireworks.ai"), Pace())
        url = f"{scheme}://127.0.0.1:{server.port}/x"
        with pytest.raises(Refused, match=r"led to 127\.0\.0\.1"):
            links.fetch(url, tmp_path / "file", Cap(), set())
        (tmp_path / "in").write_bytes(b"{}\n")
        with pytest.raises(Refused), file_body(tmp_path / "in", "text/plain") as body:
            links.put(url, body, {})
        links.close()
    assert server.requests == []
    assert not (tmp_path / "file").exists()


def test_a_refusal_never_shows_the_signature_or_a_password():
    for url in ("http://evil.example/x?X-Goog-Signature=CANARY", "https://u:CANARY@evil.example/x#CANARY"):
        with pytest.raises(Refused) as caught:
            policy().require(url)
        assert "CANARY" not in str(caught.value)
        assert "evil.example/x" in str(caught.value)


def test_without_query_keeps_what_helps():
    assert without_query("https://h/dataset/a?sig=1") == "https://h/dataset/a"


@pytest.mark.parametrize(
    "base", ["api.fireworks.ai", "ftp://api.fireworks.ai", "https://k:v@api.fireworks.ai", "https://"]
)
def test_a_base_url_that_is_none_is_an_error_of_the_config(base):
    with pytest.raises(ConfigError, match="base URL"):
        LinkPolicy(base)


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://api.fireworks.ai", True),
        ("http://127.0.0.1:8123", True),
        ("http://[::1]:8123", True),
        ("http://localhost:8123", True),
        ("http://192.168.0.7:8123", True),
        ("http://api.fireworks.ai", False),
        ("http://142.250.185.91", False),
    ],
)
def test_a_key_goes_over_plain_http_only_within_ones_own_network(url, safe):
    assert Origin.of(url).keeps_secrets is safe


def test_a_host_nobody_knows_is_an_os_error_not_a_refusal():
    with pytest.raises(OSError, match="label"):
        resolve("a" * 70 + ".example", 443)
