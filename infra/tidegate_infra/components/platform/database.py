"""PostgreSQL on RDS: private, encrypted, backed up, and not deleted by mistake."""

from __future__ import annotations

import pulumi
from pulumi_aws import rds

from tidegate_infra.components.logs import log_group
from tidegate_infra.components.platform.args import PlatformArgs
from tidegate_infra.components.platform.network import Network

ENGINE, FAMILY = "17", "postgres17"
NAME = USER = "tidegate"
LOGS = ("postgresql", "upgrade")


class Database(pulumi.ComponentResource):
    """One instance, with a standby in another zone."""

    instance: rds.Instance

    def __init__(
        self,
        args: PlatformArgs,
        network: Network,
        key_arn: pulumi.Input[str],
        parent: pulumi.Resource,
    ):
        super().__init__(
            "tidegate:aws:Database", args.name, None, pulumi.ResourceOptions(parent=parent)
        )
        opts = pulumi.ResourceOptions(parent=self)
        subnets = rds.SubnetGroup(
            args.name, subnet_ids=network.subnets.private_ids, tags=args.tags, opts=opts
        )
        for kind in LOGS:
            path = f"/aws/rds/instance/{args.name}/{kind}"
            log_group(f"{args.name}-{kind}", path, key_arn, opts)
        self.instance = rds.Instance(
            args.name,
            identifier=args.name,
            engine="postgres",
            engine_version=ENGINE,
            parameter_group_name=_only_tls(args, opts).name,
            instance_class=args.database_class,
            allocated_storage=args.database_gb,
            max_allocated_storage=args.database_gb * 10,
            storage_type="gp3",
            storage_encrypted=True,
            kms_key_id=key_arn,
            multi_az=True,
            db_name=NAME,
            username=USER,
            password=args.database_password,
            db_subnet_group_name=subnets.name,
            vpc_security_group_ids=[network.firewall.database.id],
            publicly_accessible=False,
            backup_retention_period=args.backup_days,
            copy_tags_to_snapshot=True,
            deletion_protection=args.protect,
            skip_final_snapshot=False,
            final_snapshot_identifier=f"{args.name}-final",
            auto_minor_version_upgrade=True,
            performance_insights_enabled=True,
            performance_insights_kms_key_id=key_arn,
            enabled_cloudwatch_logs_exports=LOGS,
            tags=args.tags,
            opts=opts,
        )
        self.register_outputs({})


def _only_tls(args: PlatformArgs, opts: pulumi.ResourceOptions) -> rds.ParameterGroup:
    return rds.ParameterGroup(
        args.name,
        family=FAMILY,
        parameters=[rds.ParameterGroupParameterArgs(name="rds.force_ssl", value="1")],
        tags=args.tags,
        opts=opts,
    )
