"""Where the URL and the key come from, and the profile."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tidegate import Client, ConfigurationError
from tidegate.connection import resolve
from tidegate.profile import Profile, profile_path, read_profile, write_profile


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path / "config")}


@pytest.fixture
def profile(environment: dict[str, str]) -> Profile:
    profile = Profile("http://profile:1", "tg_profile", "/data")
    write_profile(profile_path(environment), profile)
    return profile


def test_arguments_win_over_the_environment_and_the_environment_over_the_profile(
    environment: dict[str, str], profile: Profile
) -> None:
    variables = environment | {"TIDEGATE_URL": "http://env:1", "TIDEGATE_API_KEY": "tg_env"}
    assert resolve("http://arg:1/", "tg_arg", variables).url == "http://arg:1"
    assert resolve("http://arg:1", "tg_arg", variables).api_key == "tg_arg"
    assert resolve(None, None, variables).url == "http://env:1"
    assert resolve(None, None, variables).api_key == "tg_env"
    assert resolve(None, None, environment).url == profile.url
    assert resolve(None, None, environment).api_key == profile.api_key


@pytest.mark.usefixtures("profile")
def test_the_profiles_key_is_never_sent_to_another_server(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r"no API key is known for http://other:1"):
        resolve("http://other:1", None, environment)
    assert resolve("http://profile:1/v1", None, environment).api_key == "tg_profile"


def test_without_any_of_them_the_error_says_what_to_set() -> None:
    with pytest.raises(ConfigurationError, match=r"tidegate up.*TIDEGATE_URL"):
        Client()


@pytest.mark.parametrize("url", ["localhost:8686", "ftp://x", "http://", "nonsense"])
def test_something_that_is_no_url_is_refused_by_its_value(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a server's URL"):
        Client(url=url, api_key="k")


def test_a_key_that_cannot_be_a_header_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Client(url="http://x", api_key="tg_se\ncret")
    assert "cret" not in str(caught.value)


def test_the_key_is_not_in_the_repr(environment: dict[str, str]) -> None:
    assert "tg_secret" not in repr(resolve("http://x", "tg_secret", environment))


@pytest.mark.usefixtures("profile")
def test_the_profile_is_readable_by_its_owner_only_and_leaves_no_temporary_file(
    environment: dict[str, str],
) -> None:
    path = profile_path(environment)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    write_profile(path, Profile("http://new:1", "tg_new"))
    assert read_profile(path) == Profile("http://new:1", "tg_new")
    assert [entry.name for entry in path.parent.iterdir()] == ["profile.json"]


def test_a_broken_profile_is_named_with_the_remedy(environment: dict[str, str]) -> None:
    path = profile_path(environment)
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(ConfigurationError, match=r"profile\.json is not a readable profile"):
        resolve(None, None, environment)


def test_without_the_variable_the_profile_is_under_the_home_directory() -> None:
    assert profile_path({}) == Path.home() / ".config" / "tidegate" / "profile.json"
