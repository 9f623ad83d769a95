"""Which backends are tried, in which order."""

from collections import Counter

from gateway.config.documents import Backend, Deployment, PoolMember
from gateway.routing.candidates import MAX_ATTEMPTS, candidates


def deployment(*weights: int) -> Deployment:
    members = tuple(PoolMember(Backend(f"gpu-{i}", f"http://gpu-{i}"), weight) for i, weight in enumerate(weights))
    return Deployment("d", "tiny", members)


def test_the_least_loaded_for_its_weight_comes_first() -> None:
    load = {"gpu-0": 3, "gpu-1": 5, "gpu-2": 1}
    chosen = candidates(deployment(1, 4, 1), lambda backend: load[backend.name])
    assert [backend.name for backend in chosen] == ["gpu-1", "gpu-2", "gpu-0"]


def test_weights_share_the_calls_out() -> None:
    load: Counter[str] = Counter()
    pool = deployment(1, 3)
    for _ in range(400):
        load[candidates(pool, lambda backend: load[backend.name])[0].name] += 1
    assert load["gpu-1"] == 300


def test_equals_are_tried_in_random_order() -> None:
    firsts = {candidates(deployment(1, 1), lambda _: 0)[0].name for _ in range(100)}
    assert firsts == {"gpu-0", "gpu-1"}


def test_no_more_than_the_allowed_attempts() -> None:
    assert len(candidates(deployment(1, 1, 1, 1, 1), lambda _: 0)) == MAX_ATTEMPTS


def test_a_deployment_without_backends_has_no_candidate() -> None:
    assert candidates(deployment(), lambda _: 0) == []
