"""Which request each declaration ends in, and what is spelt otherwise there.

Pulumi's property names are AWS's in another case or number; what is otherwise stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

AUTOMATIC = "-0123abc"
"""What Pulumi adds to a resource's own name where none is said."""


class Api(NamedTuple):
    """The request that makes a resource."""

    service: str
    operation: str
    name: str | None = None
    """The member that takes the resource's name; its own with `AUTOMATIC` when none is said."""
    spelt: Mapping[str, str] = {}
    """Property → the path of the member, where more than the case differs."""
    elsewhere: tuple[str, ...] = ()
    """Properties of the provider's, or of another request."""


APIS: dict[str, Api] = {
    "aws:sagemaker/model:Model": Api(
        "sagemaker",
        "CreateModel",
        "ModelName",
        {"primaryContainer.modelDataSource.s3DataSources": "S3DataSource"},
    ),
    "aws-native:sagemaker:EndpointConfig": Api(
        "sagemaker", "CreateEndpointConfig", "EndpointConfigName"
    ),
    "aws:sagemaker/endpoint:Endpoint": Api("sagemaker", "CreateEndpoint", "EndpointName"),
    "aws-native:sagemaker:InferenceComponent": Api(
        "sagemaker", "CreateInferenceComponent", "InferenceComponentName"
    ),
    "aws:appautoscaling/target:Target": Api("application-autoscaling", "RegisterScalableTarget"),
    "aws:appautoscaling/policy:Policy": Api(
        "application-autoscaling", "PutScalingPolicy", "PolicyName"
    ),
    "aws:cloudwatch/metricAlarm:MetricAlarm": Api("cloudwatch", "PutMetricAlarm", "AlarmName"),
    "aws:cloudwatch/logGroup:LogGroup": Api(
        "logs", "CreateLogGroup", "logGroupName", elsewhere=("retentionInDays",)
    ),
    "aws:cloudwatch/eventRule:EventRule": Api("events", "PutRule", "Name"),
    "aws:iam/role:Role": Api(
        "iam", "CreateRole", "RoleName", {"assumeRolePolicy": "AssumeRolePolicyDocument"}
    ),
    "aws:iam/rolePolicy:RolePolicy": Api(
        "iam", "PutRolePolicy", "PolicyName", {"policy": "PolicyDocument", "role": "RoleName"}
    ),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": Api(
        "iam", "AttachRolePolicy", spelt={"role": "RoleName"}
    ),
    "aws:iam/instanceProfile:InstanceProfile": Api(
        "iam", "CreateInstanceProfile", "InstanceProfileName", elsewhere=("role",)
    ),
    "aws:s3/bucket:Bucket": Api("s3", "CreateBucket", "Bucket", elsewhere=("forceDestroy", "tags")),
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": Api(
        "s3",
        "PutPublicAccessBlock",
        spelt={
            name: f"PublicAccessBlockConfiguration.{name}"
            for name in (
                "blockPublicAcls",
                "blockPublicPolicy",
                "ignorePublicAcls",
                "restrictPublicBuckets",
            )
        },
    ),
    "aws:s3/bucketOwnershipControls:BucketOwnershipControls": Api(
        "s3", "PutBucketOwnershipControls", spelt={"rule": "OwnershipControls.Rules"}
    ),
    "aws:s3/bucketVersioning:BucketVersioning": Api("s3", "PutBucketVersioning"),
    "aws:s3/bucketPolicy:BucketPolicy": Api("s3", "PutBucketPolicy"),
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": Api(
        "s3",
        "PutBucketEncryption",
        spelt={
            "rules": "ServerSideEncryptionConfiguration.Rules",
            "rules.kmsMasterKeyId": "KMSMasterKeyID",
        },
    ),
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": Api(
        "s3", "PutBucketLifecycleConfiguration", spelt={"rules": "LifecycleConfiguration.Rules"}
    ),
    "aws:sns/topic:Topic": Api("sns", "CreateTopic", "Name", elsewhere=("kmsMasterKeyId",)),
    "aws:kms/key:Key": Api(
        "kms", "CreateKey", elsewhere=("deletionWindowInDays", "enableKeyRotation")
    ),
    "aws:kms/alias:Alias": Api("kms", "CreateAlias", "AliasName"),
    "aws:ecr/repository:Repository": Api(
        "ecr",
        "CreateRepository",
        "repositoryName",
        {"encryptionConfigurations": "encryptionConfiguration"},
        ("forceDelete",),
    ),
    "aws:ecr/lifecyclePolicy:LifecyclePolicy": Api(
        "ecr",
        "PutLifecyclePolicy",
        spelt={"repository": "repositoryName", "policy": "lifecyclePolicyText"},
    ),
    "aws:secretsmanager/secret:Secret": Api(
        "secretsmanager", "CreateSecret", "Name", elsewhere=("recoveryWindowInDays",)
    ),
    "aws:lb/loadBalancer:LoadBalancer": Api(
        "elbv2",
        "CreateLoadBalancer",
        "Name",
        {"loadBalancerType": "Type"},
        ("dropInvalidHeaderFields", "enableDeletionProtection", "idleTimeout", "internal"),
    ),
    "aws:lb/targetGroup:TargetGroup": Api(
        "elbv2",
        "CreateTargetGroup",
        "Name",
        {
            "healthCheck.path": "HealthCheckPath",
            "healthCheck.interval": "HealthCheckIntervalSeconds",
            "healthCheck.timeout": "HealthCheckTimeoutSeconds",
            "healthCheck.healthyThreshold": "HealthyThresholdCount",
            "healthCheck.matcher": "Matcher.HttpCode",
        },
        ("deregistrationDelay", "loadBalancingAlgorithmType"),
    ),
    "aws:batch/computeEnvironment:ComputeEnvironment": Api(
        "batch",
        "CreateComputeEnvironment",
        "computeEnvironmentName",
        {"computeResources.ec2Configurations": "ec2Configuration"},
    ),
    "aws:batch/jobQueue:JobQueue": Api(
        "batch",
        "CreateJobQueue",
        "jobQueueName",
        {"computeEnvironmentOrders": "computeEnvironmentOrder"},
    ),
    "aws:batch/jobDefinition:JobDefinition": Api(
        "batch",
        "RegisterJobDefinition",
        "jobDefinitionName",
        {"retryStrategy.evaluateOnExits": "evaluateOnExit"},
    ),
    "aws:ecs/cluster:Cluster": Api("ecs", "CreateCluster", "clusterName"),
    "aws:ecs/taskDefinition:TaskDefinition": Api("ecs", "RegisterTaskDefinition"),
    "aws:ecs/service:Service": Api(
        "ecs",
        "CreateService",
        "serviceName",
        {
            "networkConfiguration": "networkConfiguration.awsvpcConfiguration",
            "deploymentCircuitBreaker": "deploymentConfiguration.deploymentCircuitBreaker",
            "deploymentMaximumPercent": "deploymentConfiguration.maximumPercent",
            "deploymentMinimumHealthyPercent": "deploymentConfiguration.minimumHealthyPercent",
        },
        ("waitForSteadyState", "networkConfiguration.awsvpcConfiguration.assignPublicIp"),
    ),
    "aws:rds/instance:Instance": Api(
        "rds",
        "CreateDBInstance",
        "DBInstanceIdentifier",
        {
            "identifier": "DBInstanceIdentifier",
            "instanceClass": "DBInstanceClass",
            "parameterGroupName": "DBParameterGroupName",
            "username": "MasterUsername",
            "password": "MasterUserPassword",
            "performanceInsightsEnabled": "EnablePerformanceInsights",
            "enabledCloudwatchLogsExports": "EnableCloudwatchLogsExports",
        },
        ("skipFinalSnapshot", "finalSnapshotIdentifier"),
    ),
}
