"""Which machine a webhook's name leads to: resolved once, judged, and connected to as judged."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tidegate.protocol.webhooks import DeliveryState
from tidegate_controlplane.errors import Invalid
from tidegate_controlplane.webhooks.receiver import SystemNames


class Names:
    """A name server that says what it is told to, in turn; the last answer again and again."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    async def look_up(self, host, port):
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, OSError):
            raise answer
        return answer


async def sent(post, url, names):
    """The only delivery to `url`, once it has ended."""
    hook = await post.declare(url)
    async with post.delivering(names.look_up):
        await post.hooks.test("prj_1", hook.id)
        [delivery] = await post.ended(hook.id)
    return delivery


@pytest.fixture
def once(post):
    """One try for each delivery."""
    return post.with_settings(tries=1)


async def test_a_name_is_resolved_once_and_keeps_its_name_in_the_host_header(once, receiver):
    names = Names(["127.0.0.1"])
    url = f"http://hooks.example:{receiver.port}/a?b=c"
    delivery = await sent(once, url, names)
    assert delivery.status is DeliveryState.DELIVERED
    assert names.asked == ["hooks.example"]
    [received] = receiver.received
    assert received.headers["host"] == f"hooks.example:{receiver.port}"
    assert received.path == "/a?b=c"


async def test_a_name_that_changes_its_mind_leads_where_it_was_judged(once, receiver, kit):
    once = once.with_settings(allow_networks=(ip_network("127.0.0.1/32"),))
    async with kit.receiving("127.0.0.2") as inside:
        once = once.with_settings(ports=(receiver.port, inside.port))
        names = Names(["127.0.0.1"], ["127.0.0.2"])
        url = f"http://rebind.example:{receiver.port}/"
        assert (await sent(once, url, names)).status is DeliveryState.DELIVERED
        assert (len(names.asked), len(receiver.received)) == (1, 1)
        refused = await sent(once, f"http://rebind.example:{inside.port}/", names)
        assert "127.0.0.2 is loopback" in refused.tries[0].error
        assert inside.received == []


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.5",
        "169.254.169.254",
        "100.64.0.1",
        "192.168.1.1",
        "::ffff:10.0.0.5",
        "64:ff9b::a00:5",
        "2002:a00:5::1",
        "fd00::1",
        "fe80::1%2",
        "ff02::1",
    ],
)
async def test_a_name_of_which_one_address_is_not_public_is_not_connected_to(
    once, receiver, address
):
    names = Names(["127.0.0.1", address])
    delivery = await sent(once, f"http://mixed.example:{receiver.port}/", names)
    assert delivery.status is DeliveryState.DEAD
    assert delivery.tries[0].status_code is None
    assert delivery.tries[0].error.startswith("url: ")
    assert receiver.received == []


async def test_loopback_is_refused_unless_its_network_is_allowed(once, receiver):
    strict = once.with_settings(allow_networks=())
    names = SystemNames()
    delivery = await sent(strict, f"http://localhost:{receiver.port}/", names)
    assert "is loopback, not public" in delivery.tries[0].error
    names.close()
    with pytest.raises(Invalid, match=r"127\.0\.0\.1 is loopback") as refusal:
        await strict.declare(receiver.url)
    assert [issue.field for issue in refusal.value.issues] == ["url"]
    assert receiver.received == []


async def test_a_url_is_judged_again_at_each_try(once, receiver):
    hook = await once.declare(receiver.url)
    strict = once.with_settings(allow_networks=())
    async with strict.delivering():
        await strict.hooks.test("prj_1", hook.id)
        [delivery] = await strict.ended(hook.id)
    assert "is loopback" in delivery.tries[0].error
    assert receiver.received == []


async def test_a_name_that_is_not_found_is_an_error_in_words(once, receiver):
    for names in (Names(OSError("no such name")), Names([])):
        delivery = await sent(once, f"http://nowhere.example:{receiver.port}/", names)
        assert delivery.tries[0].error == "no answer: its name cannot be resolved"


async def test_a_name_server_that_hangs_takes_no_longer_than_a_try(once, receiver):
    async def hang(_host, _port):
        await asyncio.sleep(30)

    names = Names([])
    names.look_up = hang
    delivery = await sent(
        once.with_settings(timeout_s=0.5), f"http://slow.example:{receiver.port}/", names
    )
    assert delivery.tries[0].error == "no answer within 0.5 s"


async def test_the_proxies_of_the_environment_are_not_used(once, receiver, kit, monkeypatch):
    async with kit.receiving() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        delivery = await sent(once, f"http://a.example:{receiver.port}/", Names(["127.0.0.1"]))
        assert delivery.status is DeliveryState.DELIVERED
        assert proxy.received == []


async def test_tls_is_asked_for_by_name_and_a_certificate_nobody_vouches_for_is_refused(
    once, tmp_path
):
    asked = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    try:
        secure = once.with_settings(ports=(port,), allow_http=False)
        delivery = await sent(secure, f"https://hooks.example:{port}/", Names(["127.0.0.1"]))
    finally:
        server.close()
        await server.wait_closed()
    assert delivery.tries[0].error == "no answer: its certificate is not valid for it"
    assert asked == ["hooks.example"]


def self_signed(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hooks.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
