"""What goes wrong in AWS, and that it is said with the next command and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.integration.provision.aws.conftest import SETTINGS, Account, AwsAccount, aws_launch
from tests.integration.provision.place import is_ready

from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.domain.replicas import NoCapacity, Running
from tidegate_controlplane.provision.aws.opening import open_aws, pulumi_command
from tidegate_controlplane.provision.aws.place import AwsPlace
from tidegate_controlplane.provision.base import Holding, Notice, StartFailed

HELD = Holding("dep_1", "aws")
COMPONENT = "tidegate-rev-1"


@pytest.fixture
async def place(account: Account) -> AwsAccount:
    return AwsAccount(await account.open(), account)


def fails(account: Account, kind: str, text: str) -> Callable[[], None]:
    """Let the making of such a resource fail, until what is returned is called."""

    def before(step: str, of: str, name: str) -> None:
        if step == "create" and of.endswith(kind):
            raise ValueError(text)

    account.cloud.before = before

    def mend() -> None:
        account.cloud.before = lambda step, of, name: None

    return mend


async def told(place: AwsAccount, reason: str) -> Notice:
    """The first notice of that reason."""
    async with asyncio.timeout(place.patience_s):
        while True:
            place.heard += place.provisioner.notices()
            if found := [notice for notice in place.heard if notice.reason == reason]:
                return found[0]
            await asyncio.sleep(0.01)


async def removed(place: AwsAccount) -> list[str]:
    """Take the deployment away; what was said meanwhile."""
    for key in place.provisioner.known():
        await place.provisioner.kill(key)
        await place.until(lambda seen: not isinstance(seen, Running), key)
        await place.provisioner.forget(key)
    said: list[str] = []
    async with asyncio.timeout(place.patience_s):
        while why := await place.provisioner.remove(HELD):
            said.append(why)
            await asyncio.sleep(0.01)
    return said


def is_clean(account: Account) -> bool:
    """Whether neither the cloud nor the state holds anything."""
    stacks = list(account.pulumi.directory.glob("*.json"))
    return not (account.cloud.kept or account.sagemaker.components or stacks)


# --- before anything is made ----------------------------------------------------------------------


async def test_without_credentials_it_says_how_to_get_some(
    account: Account, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StartFailed, match=r"`aws configure`.*`aws sts get-caller-identity`"):
        await open_aws(SETTINGS, tmp_path, SystemClock(), asyncio.Event(), lambda: account.pulumi)


async def test_credentials_that_have_expired_are_told_with_who_to_look_for(
    account: Account, place: AwsAccount
) -> None:
    expired = "The security token included in the request is expired"
    account.sagemaker.refuses_control = ("ExpiredTokenException", expired)
    with pytest.raises(StartFailed, match=r"expired; .* aws sts get-caller-identity"):
        await place.provisioner.sweep([])


@pytest.mark.skipif(shutil.which("pulumi") is not None, reason="there is a pulumi on the PATH")
def test_without_the_command_it_says_where_to_get_it() -> None:
    with pytest.raises(StartFailed, match="no `pulumi` on the PATH; install it"):
        pulumi_command()


async def test_a_model_that_aws_cannot_reach_is_told_with_how_to_bring_it_there(
    place: AwsAccount,
) -> None:
    launch = aws_launch()
    object.__setattr__(launch, "source", "hf://org/name")
    with pytest.raises(StartFailed, match="aws s3 sync DIRECTORY s3://models/smol/"):
        await place.provisioner.start(launch)
    assert place.provisioner.known() == []


# --- while it is made -----------------------------------------------------------------------------


async def test_a_quota_is_no_fault_of_the_model_and_told_with_how_to_raise_it(
    account: Account, place: AwsAccount
) -> None:
    mend = fails(
        account,
        "endpoint:Endpoint",
        "creating SageMaker AI Endpoint: ResourceLimitExceeded: The account-level service limit "
        "'ml.g6.xlarge for endpoint usage' is 0 Instances",
    )
    await place.provisioner.start(aws_launch())
    seen = await place.until(lambda one: not isinstance(one, Running))
    assert isinstance(seen, NoCapacity)
    assert "aws service-quotas list-service-quotas --service-code sagemaker" in seen.message
    assert "ml.g6.xlarge for endpoint" in seen.message
    mend()
    assert await place.served(key="rep_2")
    await removed(place)
    assert is_clean(account)


async def test_an_image_that_is_not_there_is_final_until_somebody_changes_it(
    account: Account, place: AwsAccount
) -> None:
    fails(account, "model:Model", "ValidationException: Requested image tidegate not found.")
    await place.provisioner.start(aws_launch())
    seen = await place.exited()
    assert (seen.reason, seen.refused) == ("ImageNotFound", True)
    assert "aws ecr describe-images --region us-east-1 --repository-name tidegate" in seen.message
    await removed(place)
    assert is_clean(account)


async def test_what_the_engine_does_is_told_as_it_does_it(place: AwsAccount) -> None:
    await place.served()
    notice = await told(place, "StackPlanned")
    assert notice.deployment_id == "dep_1"
    assert "create" in notice.message
    made = await told(place, "StackResource")
    assert made.message.endswith(" made")


# --- locks, and updates that were cut -------------------------------------------------------------


async def test_a_stack_that_another_machine_has_locked_is_told_with_how_to_unlock_it(
    account: Account, place: AwsAccount
) -> None:
    lock = account.pulumi.directory / "locks" / "tidegate-dep-1" / "1.json"
    lock.parent.mkdir(parents=True)
    lock.write_text(json.dumps({"pid": 1, "username": "ann", "hostname": "elsewhere"}))
    await place.provisioner.start(aws_launch())
    seen = await place.exited()
    assert seen.reason == "StackLocked"
    assert "ann@elsewhere (pid 1)" in seen.message
    assert "pulumi cancel --yes --stack organization/tidegate/tidegate-dep-1" in seen.message
    assert lock.exists()
    await place.provisioner.kill("rep_1")
    await place.provisioner.forget("rep_1")
    assert "elsewhere" in (await _until_refused(place))
    lock.unlink()
    assert await removed(place)
    assert is_clean(account)


async def _until_refused(place: AwsAccount) -> str:
    async with asyncio.timeout(place.patience_s):
        while "locked" not in (why := await place.provisioner.remove(HELD) or ""):
            await asyncio.sleep(0.01)
    return why


async def test_an_update_that_still_runs_on_this_machine_is_waited_for(
    account: Account, place: AwsAccount
) -> None:
    lock = account.pulumi.directory / "locks" / "tidegate-dep-1" / "1.json"
    lock.parent.mkdir(parents=True)
    lock.write_text(json.dumps({"pid": os.getpid(), "username": "ann", "hostname": "here"}))
    await place.provisioner.start(aws_launch())
    seen = await place.exited()
    assert (seen.reason, seen.refused) == ("StackBusy", False)
    lock.unlink()
    assert await place.served(key="rep_2")


@pytest.mark.parametrize(
    "cut_at",
    [
        "endpoint:Endpoint",
        pytest.param("sagemaker:InferenceComponent", marks=pytest.mark.soak),
    ],
)
async def test_after_a_kill_in_mid_update_the_next_control_plane_goes_on(
    account: Account, place: AwsAccount, cut_at: str
) -> None:
    reached, cut = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def before(step: str, kind: str, name: str) -> None:
        if step == "create" and kind.endswith(cut_at) and not cut.is_set():
            loop.call_soon_threadsafe(reached.set)
            cut.wait(30)
            raise ValueError("nobody waits for this any more")

    account.cloud.before = before
    doomed = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.provision.aws.doomed",
        str(account.directory.parent),
        account.cloud.address,
    )
    async with asyncio.timeout(30):
        await reached.wait()
    doomed.kill()
    await doomed.wait()
    cut.set()
    stack = json.loads((account.pulumi.directory / "tidegate-dep-1.json").read_text())
    assert {each["type"] for each in stack["deployment"]["pending_operations"]} == {"creating"}
    await place.provisioner.sweep([])
    await place.served()
    assert "has ended, is taken away" in (await told(place, "StackUnlocked")).message
    await told(place, "StackResumed")
    ended = {"DeleteEndpoint", "DeleteInferenceComponent"} & {
        name for name, _ in account.sagemaker.calls
    }
    assert len(ended) == 1
    await removed(place)
    assert is_clean(account)


# --- what changes afterwards ----------------------------------------------------------------------


async def test_drift_is_told_and_so_is_its_end(account: Account) -> None:
    settings = SETTINGS.model_copy(update={"drift_every_s": 0.05})
    place = AwsAccount(await account.open(settings), account)
    await place.served()
    kept = account.cloud.kept[COMPONENT]
    account.cloud.kept[COMPONENT] = {**kept, "tags": {"by": "hand"}}
    notice = await told(place, "StackDrifted")
    assert COMPONENT in notice.message
    assert notice.message.endswith("the next change of the deployment mends it")


async def test_a_component_that_somebody_deleted_is_made_again(
    account: Account, place: AwsAccount
) -> None:
    await place.served()
    await account.sagemaker.delete(COMPONENT)
    account.cloud.kept.clear()
    seen = await place.exited()
    assert seen.reason == "Crashed"
    await place.provisioner.forget("rep_1")
    assert await place.served(key="rep_2")


async def test_a_new_revision_gets_an_endpoint_beside_the_old_one_until_that_has_no_replica(
    account: Account, place: AwsAccount
) -> None:
    first = await place.served()
    await place.provisioner.start(aws_launch(key="rep_2", revision="rev_2"))
    await place.ready("rep_2")
    second = place.provisioner.endpoint("rep_2")
    assert second is not None
    assert (await place.ask(first)).status_code == (await place.ask(second)).status_code == 200
    await place.provisioner.drain("rep_1")
    await place.exited()
    await place.provisioner.forget("rep_1")
    async with asyncio.timeout(place.patience_s):
        while COMPONENT in account.sagemaker.components:
            await asyncio.sleep(0.01)
    assert (await place.ask(second)).status_code == 200


async def test_as_many_copies_are_asked_for_as_there_are_replicas(
    account: Account, place: AwsAccount
) -> None:
    for key in ("rep_1", "rep_2", "rep_3"):
        await place.provisioner.start(aws_launch(key=key))
    for key in ("rep_1", "rep_2", "rep_3"):
        await place.ready(key)
    assert len(account.sagemaker.components[COMPONENT].copies) == 3
    await place.provisioner.drain("rep_1")
    await place.exited()
    assert len(account.sagemaker.components[COMPONENT].copies) == 2
    assert is_ready(await place.seen("rep_2"))
    assert is_ready(await place.seen("rep_3"))


async def test_at_zero_the_endpoint_stays_and_a_replica_comes_without_an_update(
    account: Account, place: AwsAccount
) -> None:
    await place.served()
    await place.provisioner.drain("rep_1")
    await place.exited()
    await place.provisioner.forget("rep_1")
    updates = account.pulumi.called.count("up")
    assert await place.served(key="rep_2")
    assert account.pulumi.called.count("up") == updates == 1


# --- copies that outlive their control plane ------------------------------------------------------


async def restarted(account: Account, place: AwsAccount, keep_copies_s: float) -> AwsPlace:
    """As after a restart of a control plane that leaves its copies for so long."""
    settings = SETTINGS.model_copy(update={"keep_copies_s": keep_copies_s})
    place.provisioner = await account.open(settings)
    await place.served()
    await place.provisioner.close()
    place.provisioner = await account.open(settings)
    await place.provisioner.sweep([])
    return place.provisioner


async def test_a_restart_takes_up_the_copies_that_it_finds(account: Account) -> None:
    place = AwsAccount(await account.open(), account)
    await restarted(account, place, keep_copies_s=60)
    (before,) = account.sagemaker.components[COMPONENT].copies
    account.sagemaker.calls.clear()
    account.sagemaker.components[COMPONENT].desired = 2
    await place.served(key="rep_2")
    assert before in account.sagemaker.components[COMPONENT].copies
    assert "UpdateInferenceComponentRuntimeConfig" not in dict(account.sagemaker.calls)


async def test_copies_that_nobody_takes_up_are_ended(account: Account) -> None:
    place = AwsAccount(await account.open(), account)
    await restarted(account, place, keep_copies_s=0.1)
    async with asyncio.timeout(place.patience_s):
        while account.sagemaker.components[COMPONENT].copies:
            await asyncio.sleep(0.01)
