"""AWS passes the suite of every provisioner, over doubles of SageMaker and of Pulumi's engine."""

from __future__ import annotations

from typing import ClassVar

import pytest
from tests.integration.provision.aws.conftest import Account, AwsAccount
from tests.integration.provision.conformance import Conformance


class TestAws(Conformance):
    place_type = AwsAccount
    unproven: ClassVar = {
        "test_a_request_with_another_token_is_turned_away": "requests are signed, not marked with "
        "a token; a wrong signature is turned away in tests/integration/gateway/test_sagemaker.py",
        "test_each_of_several_replicas_answers_for_itself": "copies of a component are alike and "
        "have no address of their own",
        "test_a_refusal_is_told_with_its_reason_and_as_final": "SageMaker does not tell how a "
        "container ended",
        "test_a_replica_that_fails_its_health_checks_is_seen": "SageMaker watches the health of "
        "its copies: a sick one is a lost one",
    }

    @pytest.fixture
    async def place(self, account: Account) -> AwsAccount:
        return AwsAccount(await account.open(), account)
