"""Whether a node of a cluster could hold a replica, and what is said when none could."""

from __future__ import annotations

import pytest

from tidegate_controlplane.domain.cluster import (
    SHOWN_NODES,
    ClusterNode,
    Needs,
    all_taken,
    too_large,
)

GIB = 1024**3
NODE = ClusterNode("n", "10.0.0.3", cpus=8, memory_bytes=32 * GIB, gpus=2, gpu_type="H100")


@pytest.mark.parametrize(
    "needs",
    [
        Needs(cpus=9, memory_bytes=GIB),
        Needs(cpus=1, memory_bytes=33 * GIB),
        Needs(cpus=1, memory_bytes=GIB, gpus=3),
        Needs(cpus=1, memory_bytes=GIB, gpus=1, gpu_type="A100"),
    ],
)
def test_what_exceeds_a_node_in_one_thing_is_too_large_for_it(needs: Needs) -> None:
    assert not NODE.could_hold(needs)
    assert too_large(needs, [NODE]) is not None


@pytest.mark.parametrize("gpu_type", [None, "H100"])
def test_all_that_a_node_has_fits_there(gpu_type: str | None) -> None:
    needs = Needs(cpus=8, memory_bytes=32 * GIB, gpus=2, gpu_type=gpu_type)
    assert too_large(needs, [NODE]) is None


def test_two_nodes_do_not_make_one_that_is_large_enough() -> None:
    said = too_large(Needs(cpus=12, memory_bytes=GIB), [NODE, NODE])
    assert said is not None
    assert "needs 12 CPUs, 1.0 GiB on one node" in said
    assert "10.0.0.3 (8 CPUs, 32.0 GiB, 2 GPUs of type H100)" in said


def test_a_cluster_without_nodes_is_told_as_such() -> None:
    said = too_large(Needs(cpus=1, memory_bytes=GIB, gpus=1, gpu_type="H100"), [])
    assert said is not None
    assert "1 CPU, 1.0 GiB, 1 GPU of type H100" in said
    assert "there is no living node with a CPU" in said


def test_a_large_cluster_is_told_in_a_few_words() -> None:
    said = all_taken(Needs(cpus=1, memory_bytes=GIB), [NODE] * (SHOWN_NODES + 3), 10.0)
    assert said.count("10.0.0.3") == SHOWN_NODES
    assert "and 3 more" in said
    assert "none became free within 10 s" in said
