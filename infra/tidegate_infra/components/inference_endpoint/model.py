"""What every endpoint has: a model (image, artifact, network), and itself by name."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
from pulumi_aws import sagemaker
from pulumi_aws_native import TagArgs
from pulumi_aws_native import sagemaker as native_sagemaker

from tidegate_infra.components.inference_endpoint.args import InferenceEndpointArgs


def sagemaker_model(
    name: str, args: InferenceEndpointArgs, opts: pulumi.ResourceOptions
) -> sagemaker.Model:
    """A model that is isolated: SageMaker brings what it reads, and the container calls nobody.

    It has no fixed name, since a change replaces it while the old one still serves.
    """
    return sagemaker.Model(
        name,
        execution_role_arn=args.execution_role_arn,
        enable_network_isolation=True,
        primary_container=sagemaker.ModelPrimaryContainerArgs(
            image=args.image,
            environment=args.settings,
            model_data_source=sagemaker.ModelPrimaryContainerModelDataSourceArgs(
                s3_data_sources=[
                    sagemaker.ModelPrimaryContainerModelDataSourceS3DataSourceArgs(
                        s3_uri=args.artifact_url,
                        s3_data_type="S3Prefix",
                        compression_type="None",
                    )
                ]
            ),
            additional_model_data_sources=_additional(args) or None,
        ),
        vpc_config=sagemaker.ModelVpcConfigArgs(
            subnets=args.subnet_ids, security_group_ids=args.security_group_ids
        ),
        tags=args.tags,
        opts=opts,
    )


def _additional(
    args: InferenceEndpointArgs,
) -> list[sagemaker.ModelPrimaryContainerAdditionalModelDataSourceArgs]:
    """What is brought beside the artifact, by channel."""
    return [
        sagemaker.ModelPrimaryContainerAdditionalModelDataSourceArgs(
            channel_name=channel,
            s3_data_sources=[
                sagemaker.ModelPrimaryContainerAdditionalModelDataSourceS3DataSourceArgs(
                    s3_uri=url, s3_data_type="S3Prefix", compression_type="None"
                )
            ],
        )
        for channel, url in sorted(args.additional_urls.items())
    ]


def sagemaker_endpoint(
    name: str,
    args: InferenceEndpointArgs,
    configuration: native_sagemaker.EndpointConfig,
    opts: pulumi.ResourceOptions,
) -> sagemaker.Endpoint:
    """The endpoint itself, under the name that callers know."""
    return sagemaker.Endpoint(
        name,
        name=args.name,
        endpoint_config_name=configuration.endpoint_config_name.apply(str),
        tags=args.tags,
        opts=opts,
    )


def native_tags(tags: Mapping[str, str]) -> list[TagArgs]:
    """The tags as the native provider takes them."""
    return [TagArgs(key=key, value=value) for key, value in sorted(tags.items())]
