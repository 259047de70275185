"""Where a webhook may lead: every range, every spelling."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from tidegate_controlplane.domain.destinations import (
    BucketDestination,
    ForbiddenDestination,
    HttpDestination,
    Rules,
    check_address,
    destination,
)

RULES = Rules(http=False, ports=(443, 8443), networks=(), buckets=("events",))

REFUSED = {
    "this host": ["0.0.0.0", "0.255.255.255", "::"],
    "private": [
        "10.0.0.0",
        "10.255.255.255",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "fc00::1",
        "fdff:ffff::1",
    ],
    "shared by a carrier": ["100.64.0.1", "100.127.255.255"],
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "link-local": ["169.254.0.1", "169.254.255.255", "fe80::1", "febf::1"],
    "reserved for protocols": ["192.0.0.8", "2001:10::1", "2001:20::1", "2001:1ff::1"],
    "for documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "a 6to4 relay": ["192.88.99.1"],
    "for benchmarks": ["198.18.0.1", "198.19.255.255"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1"],
    "reserved": ["240.0.0.1", "255.255.255.255", "100::1", "5f00::1", "4000::1", "::2"],
    "site-local": ["fec0::1"],
    "6to4": ["2002:0808:0808::1"],
    "NAT64": ["64:ff9b::808:808", "64:ff9b:1::1"],
}
METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd20:ce::254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
]


@pytest.mark.parametrize(
    ("kind", "address"), [(kind, one) for kind, found in REFUSED.items() for one in found]
)
def test_an_address_that_is_not_public_is_refused_by_the_name_of_its_range(kind, address):
    with pytest.raises(ForbiddenDestination, match=f"is {kind}, not public.*allow_networks"):
        check_address(ip_address(address), ())


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.1",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700::1111",
        "2001:4860:4860::8888",
        "::ffff:8.8.8.8",
    ],
)
def test_a_public_address_and_the_neighbours_of_each_range_are_allowed(address):
    check_address(ip_address(address), ())


@pytest.mark.parametrize("address", METADATA)
def test_a_metadata_service_is_refused_even_when_everything_is_allowed(address):
    everything = (ip_network("0.0.0.0/0"), ip_network("::/0"))
    with pytest.raises(ForbiddenDestination, match="metadata service; never allowed"):
        check_address(ip_address(address), everything)


@pytest.mark.parametrize("address", ["::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1"])
def test_an_ipv4_address_inside_another_is_judged_too(address):
    outer = (ip_network("::/0"),)
    with pytest.raises(ForbiddenDestination, match=r"10\.0\.0\.1 is private"):
        check_address(ip_address(address), outer)
    check_address(ip_address(address), (*outer, ip_network("10.0.0.0/8")))


def test_only_the_networks_that_the_settings_list_are_excepted():
    networks = (ip_network("10.1.0.0/16"), ip_network("fd00:1::/32"))
    check_address(ip_address("10.1.2.3"), networks)
    check_address(ip_address("fd00:1::5"), networks)
    for outside in ("10.2.0.1", "fd00:2::1"):
        with pytest.raises(ForbiddenDestination):
            check_address(ip_address(outside), networks)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.com/", "'http' is not allowed"),
        ("ftp://example.com/", "'ftp' is not allowed"),
        ("file:///etc/passwd", "'file' is not allowed"),
        ("gopher://example.com/", "'gopher' is not allowed"),
        ("example.com/hook", "is not allowed"),
        ("https://user@example.com/", "user or password"),
        ("https://user:word@example.com/", "user or password"),
        ("https://@example.com/", "user or password"),
        ("https://example.com/#a", "fragment"),
        ("https://example.com:22/", "port 22 is not allowed; use one of 443, 8443"),
        ("https://example.com:99999/", "cannot be read"),
        ("https://example.com\\@10.0.0.1/", "cannot be read"),
        ("https://example.com /", "a space"),
        ("https://example.com/\nhost: x", "a space"),
        ("https:///hook", "is not a host"),
        ("https://a..b/", "is not a host"),
        ("https://ex%61mple.com/", "a zone or an escape"),
        ("https://[fe80::1%25eth0]/", "a zone or an escape"),
        ("https://127.0.0.1/", "127.0.0.1 is loopback"),
        ("https://[::1]/", "::1 is loopback"),
        ("https://[::ffff:127.0.0.1]/", "127.0.0.1 is loopback"),
        ("https://169.254.169.254/latest/meta-data", "metadata service"),
        ("https://2130706433/", "spells an address unusually"),
        ("https://0x7f000001/", "spells an address unusually"),
        ("https://017700000001/", "spells an address unusually"),
        ("https://0177.0.0.1/", "spells an address unusually"),
        ("https://0x7f.0.0.1/", "spells an address unusually"),
        ("https://127.1/", "spells an address unusually"),
        ("https://127.0.0.1./", "spells an address unusually"),
        ("https://127。0。0。1/", "127.0.0.1 is loopback"),
        ("https://１２７.0.0.1/", "127.0.0.1 is loopback"),
        ("s3://other/prefix/", "bucket 'other' is not allowed"),
        ("s3://events/a/../b/", "not a prefix of plain names"),
        ("s3://events/?x=1", "nothing after it"),
        ("s3:///x", "expected s3://bucket/prefix/"),
        ("s3://[x", "cannot be read"),
        ("https://[x", "cannot be read"),
    ],
)
def test_a_url_that_may_not_be_used_is_refused_with_its_reason(url, said):
    with pytest.raises(ForbiddenDestination) as refusal:
        destination(url, RULES)
    assert str(refusal.value).startswith("url: ")
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://example.com/hook?token=1", "example.com", 443),
        ("HTTPS://EXAMPLE.com:8443", "example.com", 8443),
        ("https://bücher.example/", "xn--bcher-kva.example", 443),
        ("https://localhost./", "localhost.", 443),
        ("https://8.8.8.8/", "8.8.8.8", 443),
        ("https://[2606:4700::1111]/", "2606:4700::1111", 443),
    ],
)
def test_a_url_that_may_be_used_names_its_host_in_ascii(url, host, port):
    found = destination(url, RULES)
    assert isinstance(found, HttpDestination)
    assert (found.host, found.port) == (host, port)


def test_http_wants_a_setting():
    rules = Rules(http=True, ports=(80,), networks=(), buckets=())
    assert isinstance(destination("http://example.com/", rules), HttpDestination)


def test_a_bucket_of_the_settings_is_a_destination_with_a_prefix():
    assert destination("s3://events/a/b/", RULES) == BucketDestination("events", "a/b")
    assert destination("s3://events", RULES) == BucketDestination("events", "")
