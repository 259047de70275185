"""The file of settings that users begin from."""

from __future__ import annotations

from pathlib import Path

from tidegate_controlplane.settings import Settings
from tidegate_controlplane.settings_file import read_settings
from tidegate_controlplane.settings_text import settings_text

DOCS = Path(__file__).parents[3] / "docs" / "settings.md"


def test_the_text_is_a_file_of_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "tidegate.yaml"
    file.write_text(settings_text())
    assert read_settings(file, {"data_dir": Path("/data")}) == Settings(data_dir=Path("/data"))


def test_every_setting_is_in_it_but_the_data_directory() -> None:
    text = settings_text()
    sections = ["limits", "work", "reconcile", "telemetry"]
    for name in {*Settings.model_fields} - {"data_dir"}:
        assert f"\n{name}:" in f"\n{text}"
    for section in sections:
        fields = type(getattr(Settings(data_dir=Path("/")), section)).model_fields
        assert all(f"\n  {name}: " in text for name in fields), section
    assert "\ndata_dir:" not in f"\n{text}"


def test_the_documentation_shows_the_text_as_it_is() -> None:
    assert f"```yaml\n{settings_text()}```\n" in DOCS.read_text()
