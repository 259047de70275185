from pathlib import Path

from benchmarks.energy import Meter, counters, joules


def make_counter(powercap: Path, name: str, energy_uj: int) -> Path:
    path = powercap / name
    path.mkdir(parents=True)
    (path / "max_energy_range_uj").write_text("1000000000\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    return path


def test_joules_are_the_difference_of_two_readings() -> None:
    assert joules(1_000_000, 3_500_000, 10_000_000) == 2.5


def test_a_counter_that_started_again_is_still_counted_right() -> None:
    assert joules(9_000_000, 500_000, 10_000_000) == 1.5


def test_packages_are_added_up_and_their_parts_are_not_counted_twice(tmp_path: Path) -> None:
    one = make_counter(tmp_path, "intel-rapl:0", 5_000_000)
    make_counter(tmp_path, "intel-rapl:0:0", 4_000_000)
    two = make_counter(tmp_path, "intel-rapl:1", 7_000_000)
    meter = Meter(counters(tmp_path))
    before = meter.read()
    (one / "energy_uj").write_text("6000000\n")
    (two / "energy_uj").write_text("9000000\n")
    assert meter.available
    assert meter.joules_since(before) == 3.0


def test_a_machine_without_counters_says_so(tmp_path: Path) -> None:
    assert not Meter(counters(tmp_path / "nothing")).available
