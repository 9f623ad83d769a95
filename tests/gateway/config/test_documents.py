"""The one spelling of a backend's URL."""

import pytest

from gateway.config.documents import base_url


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("http://gpu-1:8000", "http://gpu-1:8000"),
        ("http://gpu-1:8000/", "http://gpu-1:8000"),
        ("http://gpu-1:8000/v1", "http://gpu-1:8000"),
        ("http://gpu-1:8000/v1/", "http://gpu-1:8000"),
        ("https://proxy.example/vllm/v1//", "https://proxy.example/vllm"),
        ("HTTPS://Proxy.Example/VLLM", "https://proxy.example/VLLM"),
        ("http://[2001:db8::1]:8000", "http://[2001:db8::1]:8000"),
        ("http://my_service/v10", "http://my_service/v10"),
    ],
)
def test_url_is_brought_to_its_one_spelling(given: str, kept: str) -> None:
    assert base_url(given) == kept
    assert base_url(kept) == kept


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "gpu-1:8000",
        "ftp://gpu-1",
        "http://",
        "http:///v1",
        "http://:8000",
        "http://user:password@gpu-1",
        "http://user@gpu-1",
        "http://gpu-1?x=1",
        "http://gpu-1?",
        "http://gpu-1#x",
        "http://gpu-1:0",
        "http://gpu-1:99999",
        "http://gpu-1:port",
        "http://[::1",
        "http://gpu 1",
        "http://gpu-1\n",
        "http://gpu-1/日本",
        " http://gpu-1",
    ],
)
def test_what_is_no_base_url_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="A backend's URL"):
        base_url(wrong)
