"""What a platform declares: private, encrypted, and with rights that end at its name."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.unit.infra.arguments import CERTIFICATE, IMAGE, PEPPER, platform_args
from tests.unit.infra.declarations import platform_resources, the

from tidegate_controlplane.settings_file import read_settings
from tidegate_infra.components.platform.platform import Platform
from tidegate_infra.errors import InvalidArguments
from tidegate_infra.graph.offline import declared_by
from tidegate_infra.policy.at_rest import at_rest
from tidegate_infra.policy.declared import Declared, of_type
from tidegate_infra.policy.rails import GuardRails

BUCKET = "aws:s3/bucket:Bucket"
GROUP = "aws:ec2/securityGroup:SecurityGroup"
INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
EGRESS = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"
RIGHTS = "aws:iam/rolePolicy:RolePolicy"
TASK = "aws:ecs/taskDefinition:TaskDefinition"


def statements(name: str) -> list[dict[str, Any]]:
    """The statements of one of a role's policies."""
    policy = the(platform_resources(), RIGHTS, f"tidegate-{name}")
    found: list[dict[str, Any]] = json.loads(policy.inputs["policy"])["Statement"]
    return found


def actions(name: str) -> set[str]:
    listed = [each["Action"] for each in statements(name)]
    return {one for each in listed for one in ([each] if isinstance(each, str) else each)}


def test_a_platform_keeps_the_guard_rails() -> None:
    assert GuardRails().findings(platform_resources()) == []


def test_a_platform_on_the_internet_breaks_none_but_that() -> None:
    resources = platform_resources(on_the_internet=True)
    (finding,) = GuardRails().findings(resources)
    assert "the load balancer faces the internet" in finding.message
    assert GuardRails(public=True).findings(resources) == []


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("name", {"name": "Tide"}, "lower-case letters"),
    ("account_id", {"account_id": "1234"}, "aws sts get-caller-identity"),
    ("region", {"region": "frankfurt", "availability_zones": ["frankfurt1", "frankfurt2"]}, "such"),
    (
        "region",
        {"region": "us-gov-west-1", "availability_zones": ["us-gov-west-1a", "us-gov-west-1b"]},
        "of the partition `aws`",
    ),
    ("availability_zones", {"availability_zones": ["eu-central-1a"]}, "two zones or more"),
    (
        "availability_zones",
        {"availability_zones": ["eu-central-1a", "us-east-1b"]},
        "must be a zone of eu-central-1",
    ),
    ("cidr", {"cidr": "10.42.0.0/28"}, "between /16 and /22"),
    ("cidr", {"cidr": "ten"}, "is no network"),
    ("allowed_cidrs", {"allowed_cidrs": ["0.0.0.0/0"]}, "not for everybody"),
    ("internal", {"internal": False, "allowed_cidrs": ["0.0.0.0/0"]}, "needs internet=True"),
    ("allowed_cidrs", {"internal": False, "internet": True}, "nobody may call"),
    ("name", {"name": "tide--gate"}, "single hyphens"),
    ("name", {"name": "internal-tide"}, "not begin with internal-"),
    (
        "availability_zones",
        {"availability_zones": ["eu-central-1a", "eu-central-1b", "eu-central-1a"]},
        "each once",
    ),
    ("allowed_cidrs", {"allowed_cidrs": ["2001:db8::/32"]}, "is no network"),
    ("control_planes", {"control_planes": -1}, "between 0 and"),
    ("control_plane_cpu", {"control_plane_cpu": 1000}, "Fargate takes 256, 512, 1024"),
    ("control_plane_memory_mb", {"control_plane_memory_mb": 1024}, "with control_plane_cpu 1024"),
    ("spool_gb", {"spool_gb": 20}, "between 21 and 200"),
    ("database_gb", {"database_gb": 10}, "between 20 and 6553"),
    ("database_class", {"database_class": "t4g.medium"}, "db.t4g.medium"),
    ("backup_days", {"backup_days": 36}, "between 1 and 35"),
    ("tags", {"tags": {"": "a"}}, "a key is up to 128"),
    ("alarm_emails", {"alarm_emails": []}, "who hears the alarms"),
    ("alarm_emails", {"alarm_emails": ["ops"]}, "must be an address"),
    ("alarm_emails", {"alarm_emails": [f"{n}@example.org" for n in range(11)]}, "10 at most"),
    (
        "certificate_arn",
        {"certificate_arn": "arn:aws:acm:us-east-1:123456789012:certificate/1"},
        "a certificate of ACM in eu-central-1",
    ),
    ("control_plane_image", {"control_plane_image": "tidegate/control-plane:1"}, "internet=True"),
    ("runtime_image", {"runtime_image": IMAGE.replace("eu-central-1", "us-east-1")}, "push it"),
    ("runtime_image", {"runtime_image": IMAGE.partition("@")[0]}, "REPOSITORY:TAG"),
]


@pytest.mark.parametrize(("field", "change", "remedy"), REFUSED)
def test_a_value_that_cannot_be_is_named_with_its_remedy(
    field: str, change: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(InvalidArguments) as refused:
        platform_args(**change)
    assert [issue.field for issue in refused.value.issues] == [field]
    assert remedy in str(refused.value)


def test_subnets_are_private_and_do_not_overlap() -> None:
    for resources, count in (
        (platform_resources(), 2),
        (platform_resources(on_the_internet=True), 4),
    ):
        subnets = of_type(resources, "aws:ec2/subnet:Subnet")
        blocks = [ipaddress.ip_network(each.inputs["cidrBlock"]) for each in subnets]
        assert len(blocks) == count
        assert not any(a.overlaps(b) for at, a in enumerate(blocks) for b in blocks[:at])
        assert not any(each.inputs["mapPublicIpOnLaunch"] for each in subnets)


def test_without_a_way_out_no_route_leads_to_the_internet() -> None:
    resources = platform_resources()
    tables = of_type(resources, "aws:ec2/routeTable:RouteTable")
    assert [table.inputs["routes"] for table in tables] == [[], []]
    kinds = {each.type for each in resources}
    assert not kinds & {"aws:ec2/internetGateway:InternetGateway", "aws:ec2/natGateway:NatGateway"}


def test_with_a_way_out_each_zone_leaves_by_its_own_gateway() -> None:
    resources = platform_resources(on_the_internet=True)
    gateways = of_type(resources, "aws:ec2/natGateway:NatGateway")
    tables = {each.name: each for each in of_type(resources, "aws:ec2/routeTable:RouteTable")}
    for zone, gateway in zip(("eu-central-1a", "eu-central-1b"), gateways, strict=True):
        table = tables[f"tidegate-{zone}"]
        assert table.refers_to(gateway, "routes")
        assert [route["cidrBlock"] for route in table.inputs["routes"]] == ["0.0.0.0/0"]
        subnet = the(resources, "aws:ec2/subnet:Subnet", f"tidegate-public-{zone}")
        assert gateway.refers_to(subnet, "subnetId")


def test_what_is_called_on_aws_is_reached_from_inside() -> None:
    endpoints = of_type(platform_resources(), "aws:ec2/vpcEndpoint:VpcEndpoint")
    prefix = "com.amazonaws.eu-central-1."
    reached = {each.inputs["serviceName"].removeprefix(prefix): each.inputs for each in endpoints}
    assert set(reached) == {
        *("s3", "ecr.api", "ecr.dkr", "kms", "logs", "secretsmanager", "sts"),
        *("sagemaker.api", "sagemaker.runtime", "cloudcontrolapi"),
        *("ecs", "ecs-agent", "ecs-telemetry"),
    }
    assert reached.pop("s3")["vpcEndpointType"] == "Gateway"
    assert all(each["vpcEndpointType"] == "Interface" for each in reached.values())
    assert all(each["privateDnsEnabled"] is True for each in reached.values())
    assert all(len(each["subnetIds"]) == 2 for each in reached.values())


def test_without_hosts_of_a_batch_the_network_has_no_way_to_ecs() -> None:
    args = platform_args(batch_hosts=False)
    resources = declared_by(lambda: Platform("tidegate", args))
    endpoints = of_type(resources, "aws:ec2/vpcEndpoint:VpcEndpoint")
    assert not [each for each in endpoints if ".ecs" in each.inputs["serviceName"]]


def ways(kind: str, other: str) -> set[tuple[str, str, int]]:
    """Rules between groups, as (group, other, port)."""
    resources = platform_resources()
    groups = {each.key: each.name.removeprefix("tidegate-") for each in of_type(resources, GROUP)}
    found = set()
    for rule in of_type(resources, kind):
        if rule.refers.get(other):
            (own,), (far,) = rule.refers["securityGroupId"], rule.refers[other]
            assert rule.inputs["fromPort"] == rule.inputs["toPort"]
            found.add((groups[own], groups[far], int(rule.inputs["fromPort"])))
    return found


def test_parts_talk_only_as_they_must() -> None:
    expected = {
        ("balancer", "control-plane", 8686),
        ("control-plane", "database", 5432),
        ("control-plane", "endpoints", 443),
        ("inference", "endpoints", 443),
    }
    assert ways(EGRESS, "referencedSecurityGroupId") == expected
    let_in = ways(INGRESS, "referencedSecurityGroupId")
    assert {(far, own, port) for own, far, port in let_in} == expected


def test_only_the_platforms_own_network_may_call_unless_others_are_named() -> None:
    named = [each.inputs.get("cidrIpv4") for each in of_type(platform_resources(), INGRESS)]
    assert [cidr for cidr in named if cidr] == ["10.42.0.0/16"]


def test_the_default_group_that_aws_makes_lets_nobody_through() -> None:
    group = the(platform_resources(), "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup").inputs
    assert not group.get("ingress")
    assert not group.get("egress")


def test_what_flows_in_the_network_is_logged() -> None:
    resources = platform_resources()
    log = the(resources, "aws:ec2/flowLog:FlowLog")
    assert log.inputs["trafficType"] == "ALL"
    assert log.refers_to(the(resources, "aws:cloudwatch/logGroup:LogGroup", "tidegate-flows"))


def test_buckets_are_named_by_the_account_and_versioned() -> None:
    resources = platform_resources()
    buckets = of_type(resources, BUCKET)
    assert {each.inputs["bucket"] for each in buckets} == {
        "tidegate-artifacts-123456789012",
        "tidegate-payloads-123456789012",
        "tidegate-state-123456789012",
    }
    versioned = of_type(resources, "aws:s3/bucketVersioning:BucketVersioning")
    for bucket in buckets:
        (own,) = [each for each in versioned if each.refers_to(bucket, "bucket")]
        assert own.inputs["versioningConfiguration"] == {"status": "Enabled"}


@pytest.mark.parametrize(
    ("kind", "former_days", "expiring"),
    [("artifacts", 30, {}), ("payloads", 2, {"endpoints/": 30}), ("state", 365, {})],
)
def test_a_bucket_forgets_former_versions_and_nothing_that_a_control_plane_owns(
    kind: str, former_days: int, expiring: dict[str, int]
) -> None:
    name = "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration"
    rules = the(platform_resources(), name, f"tidegate-{kind}").inputs["rules"]
    former = [each["noncurrentVersionExpiration"]["noncurrentDays"] for each in rules[:1]]
    assert former == [former_days]
    assert rules[0]["abortIncompleteMultipartUpload"] == {"daysAfterInitiation": 2}
    found = {each["filter"]["prefix"]: each["expiration"]["days"] for each in rules[1:]}
    assert found == expiring
    assert all("expiration" not in each for each in rules[:1])


def test_the_key_rotates_and_serves_services_only_for_this_account() -> None:
    key = the(platform_resources(), "aws:kms/key:Key").inputs
    assert key["enableKeyRotation"] is True
    by_sid = {each["Sid"]: each for each in json.loads(key["policy"])["Statement"]}
    assert set(by_sid) == {"Account", "Disks", "Logs", "Notices", "Events"}
    assert by_sid["Disks"]["Condition"]["StringEquals"] == {
        "kms:CallerAccount": "123456789012",
        "kms:ViaService": "ec2.eu-central-1.amazonaws.com",
    }
    assert "arn:aws:logs:eu-central-1:123456789012:log-group:*" in json.dumps(by_sid["Logs"])
    ours = {"StringEquals": {"aws:SourceAccount": "123456789012"}}
    assert by_sid["Notices"]["Condition"] == ours


def test_the_database_is_private_encrypted_doubled_backed_up_and_not_lost_by_mistake() -> None:
    resources = platform_resources()
    instance = the(resources, "aws:rds/instance:Instance")
    expected = {
        "engine": "postgres",
        "publiclyAccessible": False,
        "storageEncrypted": True,
        "multiAz": True,
        "backupRetentionPeriod": 14,
        "deletionProtection": True,
        "skipFinalSnapshot": False,
        "finalSnapshotIdentifier": "tidegate-final",
        "copyTagsToSnapshot": True,
        "password": "[secret]",
    }
    assert {name: instance.inputs[name] for name in expected} == expected
    key = the(resources, "aws:kms/key:Key")
    assert instance.refers_to(key, "kmsKeyId")
    assert instance.refers_to(the(resources, GROUP, "tidegate-database"), "vpcSecurityGroupIds")
    (only_tls,) = the(resources, "aws:rds/parameterGroup:ParameterGroup").inputs["parameters"]
    assert (only_tls["name"], only_tls["value"]) == ("rds.force_ssl", "1")
    logs = {each.inputs["name"] for each in of_type(resources, "aws:cloudwatch/logGroup:LogGroup")}
    exported = instance.inputs["enabledCloudwatchLogsExports"]
    assert {f"/aws/rds/instance/tidegate/{kind}" for kind in exported} <= logs


def test_secrets_are_secret_in_the_stack_too() -> None:
    versions = of_type(platform_resources(), "aws:secretsmanager/secretVersion:SecretVersion")
    assert [each.inputs["secretString"] for each in versions] == ["[secret]"] * 3


def test_an_image_is_scanned_never_changes_and_is_forgotten_one_day() -> None:
    resources = platform_resources()
    repositories = of_type(resources, "aws:ecr/repository:Repository")
    assert {each.inputs["name"] for each in repositories} == {
        "tidegate/control-plane",
        "tidegate/runtime",
    }
    policies = of_type(resources, "aws:ecr/lifecyclePolicy:LifecyclePolicy")
    for repository in repositories:
        assert repository.inputs["imageTagMutability"] == "IMMUTABLE"
        assert repository.inputs["imageScanningConfiguration"] == {"scanOnPush": True}
        (policy,) = [each for each in policies if each.refers_to(repository, "repository")]
        kinds = [
            each["selection"]["tagStatus"] for each in json.loads(policy.inputs["policy"])["rules"]
        ]
        assert kinds == ["untagged", "any"]


def test_images_may_lie_in_a_repository_of_ones_own() -> None:
    images = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/images"
    args = platform_args(
        control_plane_image=f"{images}/control:1", runtime_image=f"{images}/runtime@sha256:0"
    )
    resources = declared_by(lambda: Platform("tidegate", args))
    arn = "arn:aws:ecr:eu-central-1:123456789012:repository"
    for role, other in ("start", "control"), ("execution", "runtime"):
        document = json.loads(the(resources, RIGHTS, f"tidegate-{role}-pull").inputs["policy"])
        (pull,) = [each for each in document["Statement"] if "ecr:BatchGetImage" in each["Action"]]
        assert pull["Resource"] == [f"{arn}/tidegate/*", f"{arn}/images/{other}"]


def test_a_network_that_is_named_twice_is_let_in_once() -> None:
    args = platform_args(allowed_cidrs=["10.42.0.0/16", "192.0.2.0/24", "192.0.2.0/24"])
    resources = declared_by(lambda: Platform("tidegate", args))
    named = [each.inputs.get("cidrIpv4") for each in of_type(resources, INGRESS)]
    assert [cidr for cidr in named if cidr] == ["10.42.0.0/16", "192.0.2.0/24"]


@pytest.mark.parametrize("protect", [True, False])
def test_what_a_platform_holds_goes_only_with_one_that_is_not_protected(protect: bool) -> None:
    args = platform_args(protect=protect)
    resources = declared_by(lambda: Platform("tidegate", args))
    buckets = {each.inputs["forceDestroy"] for each in of_type(resources, BUCKET)}
    images = {
        each.inputs["forceDelete"] for each in of_type(resources, "aws:ecr/repository:Repository")
    }
    secrets = {
        each.inputs["recoveryWindowInDays"]
        for each in of_type(resources, "aws:secretsmanager/secret:Secret")
    }
    assert (buckets, images, secrets) == ({not protect}, {not protect}, {30 if protect else 0})
    assert the(resources, "aws:rds/instance:Instance").inputs["skipFinalSnapshot"] is False


def container() -> dict[str, Any]:
    (found,) = json.loads(the(platform_resources(), TASK).inputs["containerDefinitions"])
    return dict(found)


def test_a_control_plane_runs_read_only_with_its_role_and_hears_secrets_from_the_manager() -> None:
    resources, found = platform_resources(), container()
    assert found["readonlyRootFilesystem"] is True
    assert [each["name"] for each in found["secrets"]] == [
        "PGPASSWORD",
        "TIDEGATE_ADMIN_KEY",
        "TIDEGATE_PEPPER",
    ]
    versioned = {each["valueFrom"].rpartition(":::")[2] for each in found["secrets"]}
    assert versioned == {"version"}, "another value of a secret is another task"
    told = {each["name"] for each in found["environment"]}
    assert told == {"PGSSLMODE", "TIDEGATE_PORT", "TIDEGATE_SETTINGS"}
    task = the(resources, TASK)
    roles = {each.name: each for each in of_type(resources, "aws:iam/role:Role")}
    assert task.refers_to(roles["tidegate-task"], "taskRoleArn")
    assert task.refers_to(roles["tidegate-start"], "executionRoleArn")


def test_a_control_plane_understands_the_settings_that_it_is_given(tmp_path: Path) -> None:
    (text,) = [
        each["value"] for each in container()["environment"] if each["name"] == "TIDEGATE_SETTINGS"
    ]
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    settings = read_settings(file, {"data_dir": tmp_path, "host": "0.0.0.0", "port": 8686})
    assert settings.database == "postgresql://tidegate@database.internal/tidegate"
    assert settings.objects == "s3://tidegate-payloads-123456789012/control-plane"
    assert settings.encryption.required
    assert settings.encryption.keys[0].startswith("kms:arn:aws:kms:")
    aws = settings.aws
    assert aws is not None
    assert (aws.region, aws.name, aws.image) == ("eu-central-1", "tidegate", IMAGE)
    assert aws.state == "s3://tidegate-state-123456789012/deployments"
    assert aws.artifacts == "s3://tidegate-artifacts-123456789012/models"
    assert aws.subnets == ("tidegate-private-eu-central-1a-id", "tidegate-private-eu-central-1b-id")
    assert aws.security_groups == ("tidegate-inference-id",)
    assert aws.drift_every_s == 60.0


def test_a_platform_without_a_runtime_image_hosts_nothing_by_itself(tmp_path: Path) -> None:
    args = platform_args(runtime_image=None, settings={"reconcile": {"tick_s": 2.0}})
    resources = tuple(declared_by(lambda: Platform("tidegate", args)))
    (found,) = json.loads(the(resources, TASK).inputs["containerDefinitions"])
    told = {each["name"]: each["value"] for each in found["environment"]}
    file = tmp_path / "settings.yaml"
    file.write_text(told["TIDEGATE_SETTINGS"])
    settings = read_settings(file, {"data_dir": tmp_path})
    assert settings.aws is None
    assert settings.reconcile.tick_s == 2.0
    assert settings.encryption.required


def test_a_control_plane_starts_with_its_pepper_in_a_private_file(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\nenv > {tmp_path}/env\n')
    python.chmod(0o755)
    (command,) = container()["command"]
    subprocess.run(
        ["/bin/sh", "-c", command.replace("/data", str(data))],
        env={
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "TIDEGATE_PEPPER": PEPPER,
            "TIDEGATE_SETTINGS": '{"a": "b c"}',
            "TIDEGATE_PORT": "8686",
        },
        check=True,
    )
    assert (data / "pepper").read_bytes() == bytes(range(32))
    assert (data / "pepper").stat().st_mode & 0o077 == 0
    assert (data / "settings.yaml").read_text() == '{"a": "b c"}'
    called = (tmp_path / "called").read_text()
    assert called.startswith(f"-m tidegate_controlplane --data {data} --config ")
    assert "--host 0.0.0.0 --port 8686" in called
    assert PEPPER not in (tmp_path / "env").read_text()


def test_control_planes_are_behind_tls_and_their_health_decides() -> None:
    resources = platform_resources()
    balancer = the(resources, "aws:lb/loadBalancer:LoadBalancer")
    assert balancer.inputs["internal"] is True
    assert balancer.inputs["dropInvalidHeaderFields"] is True
    assert balancer.inputs["enableDeletionProtection"] is True
    subnets = of_type(resources, "aws:ec2/subnet:Subnet")
    assert all(balancer.refers_to(subnet, "subnets") for subnet in subnets)
    listener = the(resources, "aws:lb/listener:Listener").inputs
    assert (listener["port"], listener["protocol"]) == (443, "HTTPS")
    assert listener["certificateArn"] == CERTIFICATE
    assert listener["sslPolicy"] == "ELBSecurityPolicy-TLS13-1-2-2021-06"
    targets = the(resources, "aws:lb/targetGroup:TargetGroup").inputs
    assert targets["healthCheck"]["path"] == "/readyz"
    service = the(resources, "aws:ecs/service:Service").inputs
    assert service["desiredCount"] == 2
    assert service["networkConfiguration"]["assignPublicIp"] is False
    assert service["deploymentCircuitBreaker"] == {"enable": True, "rollback": True}
    assert service["deploymentMinimumHealthyPercent"] == 100


def test_a_control_plane_starts_when_its_rights_secrets_and_buckets_are_there() -> None:
    service = the(platform_resources(), "aws:ecs/service:Service")
    assert {
        "aws:lb/listener:Listener::tidegate",
        "tidegate:aws:Roles::tidegate",
        "tidegate:aws:Secrets::tidegate",
        "tidegate:aws:Storage::tidegate",
    } == service.after


def test_on_the_internet_only_the_load_balancer_leaves_the_private_subnets() -> None:
    resources = platform_resources(on_the_internet=True)
    public = [each for each in of_type(resources, "aws:ec2/subnet:Subnet") if "public" in each.name]
    users = {each.type for each in resources if any(each.refers_to(subnet) for subnet in public)}
    assert users == {
        "aws:lb/loadBalancer:LoadBalancer",
        "aws:ec2/natGateway:NatGateway",
        "aws:ec2/routeTableAssociation:RouteTableAssociation",
    }


def test_a_control_plane_asks_and_counts_copies_of_its_own_prefix() -> None:
    ask, count, *_ = statements("task-serve")
    assert ask["Action"] == [
        "sagemaker:InvokeEndpoint",
        "sagemaker:InvokeEndpointWithResponseStream",
    ]
    prefix = "arn:aws:sagemaker:eu-central-1:123456789012"
    of_copies = f"{prefix}:inference-component/tidegate-*"
    assert ask["Resource"] == [f"{prefix}:endpoint/tidegate-*", of_copies]
    assert count["Action"] == "sagemaker:UpdateInferenceComponentRuntimeConfig"
    assert count["Resource"] == of_copies


def test_a_control_plane_may_do_what_its_provisioner_calls() -> None:
    called = {
        *("sagemaker:DescribeInferenceComponent", "sagemaker:ListInferenceComponents"),
        *("sagemaker:DeleteInferenceComponent", "sagemaker:DeleteEndpoint"),
        *("sagemaker:CreateModel", "sagemaker:CreateEndpointConfig", "sagemaker:CreateEndpoint"),
        *("sagemaker:CreateInferenceComponent", "sagemaker:UpdateInferenceComponent"),
        *("sagemaker:UpdateEndpoint", "sagemaker:AddTags", "logs:FilterLogEvents"),
        *("logs:CreateLogGroup", "logs:AssociateKmsKey", "cloudformation:CreateResource"),
    }
    assert called <= actions("task-host")
    scaling = {each for each in actions("task-host") if each.startswith("application-autoscaling")}
    assert not scaling


def test_a_control_plane_passes_one_role_to_one_service() -> None:
    (passed,) = [each for each in statements("task-host") if each["Action"] == "iam:PassRole"]
    assert passed["Resource"] == "arn:aws:iam::123456789012:role/tidegate-execution"
    condition = {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    assert passed["Condition"] == condition
    role = the(platform_resources(), "aws:iam/role:Role", "tidegate-execution").inputs
    assert role["name"] == "tidegate-execution"


def test_a_host_of_a_model_reads_artifacts_and_writes_results_and_nothing_else() -> None:
    objects = {
        resource: each["Action"]
        for each in statements("execution-run")
        for resource in [each["Resource"]]
        if isinstance(resource, str) and resource.startswith("arn:aws:s3")
    }
    assert objects == {
        "arn:aws:s3:::tidegate-artifacts-123456789012/*": "s3:GetObject",
        "arn:aws:s3:::tidegate-payloads-123456789012/endpoints/*": ["s3:GetObject", "s3:PutObject"],
    }
    forbidden = {"iam:PassRole", "secretsmanager:GetSecretValue", "sagemaker:InvokeEndpoint"}
    assert not forbidden & actions("execution-run")


def test_only_what_starts_a_control_plane_reads_its_secrets() -> None:
    readers = [
        policy.name
        for policy in of_type(platform_resources(), RIGHTS)
        if "secretsmanager:GetSecretValue" in policy.inputs["policy"]
    ]
    assert readers == ["tidegate-start-start"]


def test_grants_on_the_key_are_only_for_services_of_aws() -> None:
    for role in ("task-key", "start-key", "execution-key"):
        use, grant = statements(role)
        assert "kms:CreateGrant" not in use["Action"]
        assert grant["Condition"] == {"Bool": {"kms:GrantIsForAWSResource": "true"}}


def test_roles_are_taken_by_the_services_that_need_them() -> None:
    trusted = {
        role.name: json.loads(role.inputs["assumeRolePolicy"])["Statement"][0]["Principal"][
            "Service"
        ]
        for role in of_type(platform_resources(), "aws:iam/role:Role")
    }
    assert trusted == {
        "tidegate-flows": ["vpc-flow-logs.amazonaws.com"],
        "tidegate-task": ["ecs-tasks.amazonaws.com"],
        "tidegate-start": ["ecs-tasks.amazonaws.com"],
        "tidegate-execution": ["sagemaker.amazonaws.com", "ecs-tasks.amazonaws.com"],
    }


def test_trouble_and_spending_are_heard_of() -> None:
    resources = platform_resources()
    topic = the(resources, "aws:sns/topic:Topic")
    alarms = of_type(resources, "aws:cloudwatch/metricAlarm:MetricAlarm")
    assert {each.name for each in alarms} == {
        "tidegate-failing",
        "tidegate-unhealthy",
        "tidegate-database-full",
        "tidegate-database-busy",
    }
    assert all(each.refers_to(topic, "alarmActions") for each in alarms)
    policy = json.loads(the(resources, "aws:sns/topicPolicy:TopicPolicy").inputs["policy"])
    speakers = {each["Sid"]: each["Principal"]["Service"] for each in policy["Statement"]}
    assert speakers == {
        "Notices": ["budgets.amazonaws.com", "cloudwatch.amazonaws.com"],
        "Events": "events.amazonaws.com",
    }
    (notices,) = [each for each in policy["Statement"] if each["Sid"] == "Notices"]
    assert notices["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}
    budget = the(resources, "aws:budgets/budget:Budget").inputs
    assert (budget["limitAmount"], budget["timeUnit"]) == ("900", "MONTHLY")
    told = [(each["notificationType"], each["threshold"]) for each in budget["notifications"]]
    assert told == [("ACTUAL", 80), ("FORECASTED", 100)]
    assert topic.refers_to(the(resources, "aws:kms/key:Key"), "kmsMasterKeyId")


def test_at_rest_a_platform_runs_its_own_parts_and_no_gpu() -> None:
    units = Counter[str]()
    for running in at_rest(platform_resources()):
        units[running.unit] += running.count
    assert units == {
        "db.t4g.medium": 2,
        "fargate-vcpu": 2,
        "fargate-gib": 8,
        "alb": 1,
        "interface-endpoint": 24,
    }
    ways_out = at_rest(platform_resources(on_the_internet=True))
    assert sum(each.count for each in ways_out if each.unit == "nat-gateway") == 2


def test_every_log_is_encrypted_with_the_platforms_key_and_forgotten() -> None:
    resources = platform_resources()
    key = the(resources, "aws:kms/key:Key")
    groups: list[Declared] = of_type(resources, "aws:cloudwatch/logGroup:LogGroup")
    assert all(each.refers_to(key, "kmsKeyId") for each in groups)
    assert {each.inputs["retentionInDays"] for each in groups} == {30}
