"""What control planes are told in confidence."""

from __future__ import annotations

import pulumi
from pulumi_aws import secretsmanager

from tidegate_infra.components.platform.args import PlatformArgs

RECOVERY_DAYS = 30
"""While a deleted secret can be had back, and its name is taken."""


class Secrets(pulumi.ComponentResource):
    """The database's password, the pepper of API keys' digests, and the first admin key."""

    database_password: pulumi.Output[str]
    """As ECS names a value, here and below: the secret, and the version of it. So another value
    is another task, and control planes start anew with it."""
    pepper: pulumi.Output[str]
    admin_key: pulumi.Output[str]

    def __init__(self, args: PlatformArgs, key_arn: pulumi.Input[str], parent: pulumi.Resource):
        super().__init__(
            "tidegate:aws:Secrets", args.name, None, pulumi.ResourceOptions(parent=parent)
        )
        self._args, self._key_arn = args, key_arn
        self.database_password = self._secret("database-password", args.database_password)
        self.pepper = self._secret("pepper", args.pepper)
        self.admin_key = self._secret("admin-key", args.admin_key)
        self.register_outputs({})

    def _secret(self, what: str, value: pulumi.Input[str]) -> pulumi.Output[str]:
        name, opts = f"{self._args.name}-{what}", pulumi.ResourceOptions(parent=self)
        secret = secretsmanager.Secret(
            name,
            name=f"{self._args.name}/{what}",
            kms_key_id=self._key_arn,
            recovery_window_in_days=RECOVERY_DAYS if self._args.protect else 0,
            tags=self._args.tags,
            opts=opts,
        )
        # The provider marks the value as secret, whatever it is given.
        version = secretsmanager.SecretVersion(
            name, secret_id=secret.id, secret_string=value, opts=opts
        )
        return pulumi.Output.concat(secret.arn, ":::", version.version_id)
