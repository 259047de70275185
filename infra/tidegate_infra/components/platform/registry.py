"""Where images are kept: a tag never changes, and what nobody runs is forgotten."""

from __future__ import annotations

import json

import pulumi
from pulumi_aws import ecr

from tidegate_infra.components.platform.args import PlatformArgs

KEPT_UNTAGGED_DAYS = 14
KEPT_IMAGES = 50
IMAGES = ("control-plane", "runtime")


class Registry(pulumi.ComponentResource):
    """A repository per image, scanned when it is pushed."""

    repositories: dict[str, ecr.Repository]

    def __init__(self, args: PlatformArgs, key_arn: pulumi.Input[str], parent: pulumi.Resource):
        super().__init__(
            "tidegate:aws:Registry", args.name, None, pulumi.ResourceOptions(parent=parent)
        )
        self._args, self._key_arn = args, key_arn
        self.repositories = {image: self._repository(image) for image in IMAGES}
        self.register_outputs({})

    def _repository(self, image: str) -> ecr.Repository:
        name, opts = f"{self._args.name}-{image}", pulumi.ResourceOptions(parent=self)
        repository = ecr.Repository(
            name,
            name=f"{self._args.name}/{image}",
            image_tag_mutability="IMMUTABLE",
            force_delete=not self._args.protect,
            image_scanning_configuration=ecr.RepositoryImageScanningConfigurationArgs(
                scan_on_push=True
            ),
            encryption_configurations=[
                ecr.RepositoryEncryptionConfigurationArgs(
                    encryption_type="KMS", kms_key=self._key_arn
                )
            ],
            tags=self._args.tags,
            opts=opts,
        )
        ecr.LifecyclePolicy(name, repository=repository.name, policy=_forgets(), opts=opts)
        return repository


def _forgets() -> str:
    untagged = {
        "tagStatus": "untagged",
        "countType": "sinceImagePushed",
        "countUnit": "days",
        "countNumber": KEPT_UNTAGGED_DAYS,
    }
    many = {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": KEPT_IMAGES}
    rules = [
        {"rulePriority": at, "selection": selection, "action": {"type": "expire"}}
        for at, selection in enumerate((untagged, many), start=1)
    ]
    return json.dumps({"rules": rules})
