from pathlib import Path

from benchmarks.catalogue import PEERS, peer_systems, tidegate_systems
from benchmarks.setup import own_folder, trimmed


def test_requirements_are_kept_but_for_optional_ones_and_those_named() -> None:
    found = trimmed(
        [
            "regex",
            "torch==2.13.0+cpu; platform_machine == 'x86_64'",
            "opencv_python_headless>=4.13.0",
            "mistral_common[image]>=1.11.6",
            "fastapi[standard]<0.137.0",
            'pandas; extra == "bench"',
        ],
        without={"torch", "opencv-python-headless"},
    )
    assert found == ["regex", "mistral_common>=1.11.6", "fastapi[standard]<0.137.0"]


def test_the_folder_of_the_peers_is_not_seen_by_git(tmp_path: Path) -> None:
    own_folder(tmp_path / ".bench")
    assert (tmp_path / ".bench" / ".gitignore").read_text() == "*\n"


def test_every_peer_of_the_table_can_be_installed_and_names_its_versions() -> None:
    assert {system.environment for system in peer_systems()} == PEERS.keys()
    assert all(peer.packages for peer in PEERS.values())


def test_no_two_systems_have_one_name() -> None:
    names = [system.name for system in [*tidegate_systems(), *peer_systems()]]
    assert len(names) == len(set(names))


def test_the_bound_of_a_gguf_file_of_four_bits_is_that_of_int4() -> None:
    assert {system.name: system.bound_by for system in peer_systems()} == {
        "llama.cpp": "int4",
        "openvino": "int4",
        "vllm": "bf16",
        "transformers": "bf16",
    }
