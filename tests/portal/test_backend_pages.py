"""The pages of backends: how they are, one more after a test, out of service and back; a credential that never comes out."""

import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any

import orjson
import pytest
import redis
from django.test import Client, override_settings

from accounts.models import AuditEvent, User
from gateway.config import backends
from gateway.models import Backend, ConfigChange, Deployment, PoolMember
from gateway.routing import exchange, in_flight
from gateway.routing.ejection import By, eject
from gateway.routing.gauges import Load
from gateway.routing.verdicts import Verdict
from portal.backend_trial import try_backend
from tests.e2e.conftest import BY
from tests.portal.paging import turned
from tests.processes import free_port
from tests.simulator import Simulator, simulator

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
SECRET = "sk-of-the-backend-0123456789"
DjangoAssertNumQueries = Any


@pytest.fixture(scope="module")
def vllm() -> Iterator[Simulator]:
    with simulator() as running:
        yield running


@pytest.fixture
def chief(signed_in: SignedIn, operator: User) -> Client:
    client = signed_in(operator)
    client.get("/admin/backends/")  # the first page of a process is slow: what workers told would be old by then
    return client


@pytest.fixture
def gpu(valkey: redis.Redis) -> Backend:
    row = Backend.objects.create(name="gpu-1", url="http://192.0.2.7:8000")
    PoolMember.objects.create(deployment=Deployment.objects.create(name="tiny", served_model="tiny"), backend=row)
    return row


def text_of(client: Client, path: str = "") -> str:
    answer = client.get(f"/admin/backends/{path}")
    assert answer.status_code == 200
    return words(answer.content.decode())


def words(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))


def tell(valkey: redis.Redis, *, calls: int = 0, load: Load | None = None, problem: str = "") -> None:
    """As the gateway's workers do."""
    seconds, _ = valkey.time()
    now_s = float(seconds)
    valkey.hset(in_flight.KEY, "w1", in_flight.encode({"gpu-1": calls}, at_s=now_s))
    verdict = Verdict(now_s, None, models=("tiny",), max_model_len=8192, load=load)
    valkey.hset(exchange.VERDICTS, "gpu-1", orjson.dumps(verdict.to_dict()))
    if problem:
        ejection = eject(None, by=By.PROBE, reason="refused", text=problem, now_s=now_s)
        valkey.hset(exchange.EJECTIONS, "gpu-1", orjson.dumps(ejection.to_dict()))


def fields(url: str, **more: str) -> dict[str, str]:
    return {"name": "gpu-2", "url": url, "credential": "", **more}


def kept_in(page: str) -> str:
    found = re.search(r'name="kept" value="([^"]+)"', page)
    assert found is not None
    return unescape(found[1])


def last_event() -> AuditEvent:
    return AuditEvent.objects.order_by("sequence").last()  # type: ignore[return-value] # the caller has written one


def test_list_tells_what_the_workers_tell_each_other(chief: Client, gpu: Backend, valkey: redis.Redis) -> None:
    tell(valkey, calls=3, load=Load(running=2, waiting=7, kv_cache=0.42, at_s=0))
    told = text_of(chief)
    for shown in ("gpu-1", gpu.url, "Healthy", "Calls in flight 3", "Running 2", "Waiting 7", "42 %", "tiny"):
        assert shown in told, shown


def test_a_backend_that_is_out_says_why(chief: Client, gpu: Backend, valkey: redis.Redis) -> None:
    tell(valkey, problem="takes no connections")
    told = text_of(chief)
    assert "Out" in told
    assert "takes no connections" in told


def test_without_workers_nothing_is_claimed(chief: Client, gpu: Backend) -> None:
    told = text_of(chief)
    assert "Not known" in told
    assert "No worker of the gateway tells of itself" in told


@override_settings(REDIS_URL="unix:///nowhere/at/all.sock")
def test_pages_work_and_say_so_when_redis_is_out(chief: Client, gpu: Backend) -> None:
    for path in ("", "_live/", "gpu-1/", "gpu-1/live/"):
        assert "Redis does not answer" in text_of(chief, path)


def test_live_parts_are_the_parts_of_their_pages(chief: Client, gpu: Backend, valkey: redis.Redis) -> None:
    tell(valkey)
    for page, live in (("", "_live/"), ("gpu-1/", "gpu-1/live/")):
        part = chief.get(f"/admin/backends/{live}").content.decode()
        assert "<html" not in part
        assert part.strip().startswith('<div class="live" data-poll hx-get="/admin/backends/')
        assert 'hx-swap="outerHTML"' in chief.get(f"/admin/backends/{page}").content.decode()


def test_many_backends_take_as_few_queries(
    chief: Client, gpu: Backend, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    pool = gpu.memberships.get().deployment
    for number in range(30):
        row = Backend.objects.create(name=f"more-{number}", url=f"http://192.0.2.8:{8000 + number}")
        PoolMember.objects.create(deployment=pool, backend=row)
    for path, most in (("", 9), ("_live/", 5), ("gpu-1/", 13)):
        with django_assert_max_num_queries(most):
            text_of(chief, path)


def test_live_part_asks_one_question_of_its_own(
    chief: Client, gpu: Backend, valkey: redis.Redis, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    """Beside those of every page: the session, the person, the rule of second factors."""
    tell(valkey)
    chief.get("/admin/backends/_live/")
    for path in ("_live/", "gpu-1/live/"):
        with django_assert_max_num_queries(4):
            assert "tiny" in text_of(chief, path) or path != "_live/"


def test_backends_are_found_and_paged(chief: Client, gpu: Backend) -> None:
    for number in range(30):
        Backend.objects.create(name=f"more-{number:02}", url=f"http://192.0.2.8:{8000 + number}")
    first = chief.get("/admin/backends/").content.decode()
    assert "31 in all" in first
    second = turned(chief, "/admin/backends/", first)
    assert "more-29" in second
    assert "gpu-1" not in text_of(chief, "?q=MORE")
    assert "more-07" in text_of(chief, "?q=:8007")
    assert "No backend like this" in text_of(chief, "?q=nobody")
    assert "?after=" in re.findall(r'hx-get="(/admin/[^"]*)"', second)[0]


def test_consequence_of_draining_names_who_is_left(chief: Client, gpu: Backend) -> None:
    assert "tiny: no other backend takes calls; they are answered with 502." in text_of(chief, "gpu-1/")
    other = Deployment.objects.create(name="large", served_model="large")
    Deployment.objects.update_or_create(name="tiny", defaults={"fallback": other})
    assert "tiny: no other backend takes calls; they go on to large." in text_of(chief, "gpu-1/")
    PoolMember.objects.create(
        deployment=Deployment.objects.get(name="tiny"), backend=Backend.objects.create(name="gpu-9", url="http://192.0.2.9")
    )
    assert "tiny: 1 other backend takes its calls." in text_of(chief, "gpu-1/")


def test_draining_counts_down_to_none(chief: Client, gpu: Backend, valkey: redis.Redis) -> None:
    chief.post("/admin/backends/gpu-1/drain/")
    assert (last_event().verb, last_event().target) == ("backend.drained", "backend gpu-1")
    tell(valkey, calls=2)
    held = list(ConfigChange.objects.all())
    ConfigChange.objects.all().delete()
    assert "2 calls are still there" in text_of(chief, "gpu-1/live/")
    tell(valkey, calls=0)
    ConfigChange.objects.bulk_create(held)
    assert "The gateway has not heard of it yet" in text_of(chief, "gpu-1/live/")
    ConfigChange.objects.all().delete()
    assert "No call is left: it can be stopped." in text_of(chief, "gpu-1/live/")
    chief.post("/admin/backends/gpu-1/resume/")
    assert last_event().verb == "backend.resumed"
    assert AuditEvent.objects.count() == 2


def test_a_test_asks_what_the_gateway_will_and_saves_nothing(chief: Client, vllm: Simulator) -> None:
    page = chief.post("/admin/backends/_new/", fields(vllm.url, **{"try": "1"})).content.decode()
    told = words(page)
    for shown in (
        f"GET {vllm.url}/health: status 200",
        "Models tiny",
        "Stream",
        "Usage 8 tokens",
        "Token count",
        "It can take calls",
    ):
        assert shown in told, shown
    assert not Backend.objects.exists()
    assert not AuditEvent.objects.exists()


def test_a_backend_that_is_not_there_is_told_without_an_error(chief: Client) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    told = words(chief.post("/admin/backends/_new/", fields(url, **{"try": "1"})).content.decode())
    assert f"GET {url}/health: no answer (it takes no connections)" in told
    assert "It cannot take calls" in told


@pytest.mark.parametrize(
    ("knobs", "problem"),
    [
        ({"health_status": 503}, "status 503"),
        ({"cut_after": 2}, "the connection ended before the answer"),
        ({"no_done": True}, "not in the form"),
        ({"error_event_after": 1}, "it reported an error"),
        ({"status": 500}, "status 500"),
        ({"content_type": "text/html"}, "not in the form"),
    ],
)
def test_what_is_wrong_with_a_backend_is_found(vllm: Simulator, knobs: dict[str, Any], problem: str) -> None:
    vllm.knobs(**knobs)
    try:
        found = [result for result in try_backend(vllm.url, None) if result.level == "error"]
    finally:
        vllm.reset()
    assert len(found) == 1
    assert problem in f"{found[0].name} {found[0].detail}"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "gopher://x", "http://", "http://me:pw@gpu", "javascript:alert(1)"])
def test_what_is_no_address_of_a_backend_is_neither_asked_nor_saved(chief: Client, url: str) -> None:
    for button in ({"try": "1"}, {}):
        page = chief.post("/admin/backends/_new/", fields(url, **button)).content.decode()
        assert "id_url_error" in page
        assert "What the test found" not in page
        assert "Give http:// or https://" in page
    assert not Backend.objects.exists()


def test_a_credential_never_comes_out(chief: Client, vllm: Simulator) -> None:
    tried = chief.post("/admin/backends/_new/", fields(vllm.url, credential=SECRET, **{"try": "1"})).content.decode()
    made = chief.post("/admin/backends/_new/", fields(vllm.url, kept=kept_in(tried)), follow=True).content.decode()
    row = Backend.objects.get(name="gpu-2")
    assert row.credential == SECRET
    pages = [tried, made, *(chief.get(f"/admin/backends/gpu-2/{path}").content.decode() for path in ("", "edit/", "delete/"))]
    assert not [page for page in pages if SECRET in page or row.credential_ciphertext in page]
    assert last_event().after == {"url": vllm.url, "credential": "***"}


def test_a_kept_credential_is_of_use_to_nobody_else(chief: Client, vllm: Simulator) -> None:
    kept = kept_in(chief.post("/admin/backends/_new/", fields(vllm.url, credential=SECRET, **{"try": "1"})).content.decode())
    chief.force_login(User.objects.create_user("other@sekisho.example", is_operator=True))
    chief.post("/admin/backends/_new/", fields(vllm.url, kept=kept))
    assert Backend.objects.get(name="gpu-2").credential is None


def test_an_empty_credential_keeps_the_one_that_is_held(chief: Client, gpu: Backend) -> None:
    backends.change(gpu, url=gpu.url, credential=SECRET, **BY)
    chief.post("/admin/backends/gpu-1/edit/", {"url": gpu.url + "/vllm", "credential": ""})
    row = Backend.objects.get(name="gpu-1")
    assert (row.url, row.credential) == (gpu.url + "/vllm", SECRET)
    chief.post("/admin/backends/gpu-1/edit/", {"url": row.url, "credential": "", "removes_credential": "on"})
    assert Backend.objects.get(name="gpu-1").credential is None
    assert last_event().after == {"credential": None}


@pytest.mark.parametrize("button", [{}, {"try": "1"}])
def test_a_held_credential_is_not_taken_to_another_address(chief: Client, gpu: Backend, button: dict[str, str]) -> None:
    backends.change(gpu, url=gpu.url, credential=SECRET, **BY)
    asked = {"url": "http://elsewhere.example:8000", "credential": "", **button}
    page = chief.post("/admin/backends/gpu-1/edit/", asked).content.decode()
    assert "not sent to another address unasked" in page
    assert Backend.objects.get(name="gpu-1").url == gpu.url


def test_saving_what_is_so_already_writes_nothing(chief: Client, gpu: Backend) -> None:
    page = chief.post("/admin/backends/gpu-1/edit/", {"url": gpu.url, "credential": ""}, follow=True).content.decode()
    assert "Nothing was changed." in page
    assert not AuditEvent.objects.exists()


def test_a_name_that_is_taken_is_told_at_its_field(chief: Client, gpu: Backend) -> None:
    page = chief.post("/admin/backends/_new/", fields("http://192.0.2.1", name="gpu-1")).content.decode()
    assert "id_name_error" in page
    assert 'value="http://192.0.2.1"' in page


def test_a_backend_in_a_pool_stays_and_says_whose(chief: Client, gpu: Backend) -> None:
    assert "tiny" in text_of(chief, "gpu-1/delete/")
    page = chief.post("/admin/backends/gpu-1/delete/", follow=True).content.decode()
    assert "Deployments that have it in their pool: tiny." in page
    assert Backend.objects.filter(name="gpu-1").exists()
    assert not AuditEvent.objects.exists()
    gpu.memberships.all().delete()
    chief.post("/admin/backends/gpu-1/delete/")
    assert not Backend.objects.exists()
    assert last_event().verb == "backend.deleted"


def test_first_steps_are_shown_where_there_is_none(chief: Client, valkey: redis.Redis) -> None:
    assert "Add the first one" in text_of(chief)
