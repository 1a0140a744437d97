"""Where the client looks for its server and its key."""

import httpx2
import pytest
from miaod_client import Client


def test_the_default_server_is_the_one_on_this_machine() -> None:
    with Client() as client:
        assert client.url == "http://127.0.0.1:8000"


def test_the_environment_names_server_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIAOD_URL", "https://miaod.example/api/")
    with Client() as client:
        assert client.url == "https://miaod.example/api"


def test_an_argument_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIAOD_URL", "https://elsewhere.example")
    with Client(url="http://127.0.0.1:9000") as client:
        assert client.url == "http://127.0.0.1:9000"


def test_the_address_of_an_injected_http_client_counts() -> None:
    with httpx2.Client(base_url="http://testserver") as http:
        assert Client(http_client=http).url == "http://testserver"


def test_an_injected_http_client_stays_open() -> None:
    with httpx2.Client(base_url="http://testserver") as http:
        with Client(http_client=http):
            pass
        assert not http.is_closed


def test_a_path_below_the_servers_root_is_kept() -> None:
    seen: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(str(request.url))
        return httpx2.Response(200, json={"status": "ok", "version": "1"})

    with httpx2.Client(transport=httpx2.MockTransport(answer)) as http:
        Client(url="http://host.test/miaod/", http_client=http).health.live()
    assert seen == ["http://host.test/miaod/healthz"]


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://host:port", "http://"])
def test_a_malformed_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        Client(url=url)


@pytest.mark.parametrize("key", ["line\nbreak", "schlüssel"])
def test_a_key_that_cannot_stand_in_a_header_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="API key"):
        Client(api_key=key)
