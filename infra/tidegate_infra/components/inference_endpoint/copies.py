"""An endpoint that hosts copies of one model as an inference component.

Realtime and serverless endpoints are the same here but for their minimum. Instances follow the
copies by themselves (managed instance scaling).
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_aws import sagemaker
from pulumi_aws_native import sagemaker as native_sagemaker

from tidegate_infra.components.inference_endpoint.args import InferenceEndpointArgs
from tidegate_infra.components.inference_endpoint.model import (
    native_tags,
    sagemaker_endpoint,
    sagemaker_model,
)
from tidegate_infra.components.logs import log_group

VARIANT = "copies"
SCALED_BY_TAG = "tidegate:scaled-by"
"""On an inference component: who owns the number of its copies."""


@dataclass(frozen=True)
class Hosted:
    endpoint: sagemaker.Endpoint
    component: native_sagemaker.InferenceComponent


def hosted_copies(name: str, args: InferenceEndpointArgs, parent: pulumi.Resource) -> Hosted:
    """Model, endpoint configuration, endpoint, and the inference component on it.

    Log groups are made first: those that SageMaker makes are not encrypted, and kept for ever.
    """
    opts = pulumi.ResourceOptions(parent=parent)
    for place in ("Endpoints", "InferenceComponents"):
        log_group(f"{name}-{place}", f"/aws/sagemaker/{place}/{args.name}", args.kms_key_arn, opts)
    model = sagemaker_model(name, args, opts)
    configuration = _configuration(name, args, opts)
    endpoint = sagemaker_endpoint(name, args, configuration, opts)
    return Hosted(endpoint, _component(name, args, endpoint, model, opts))


def _configuration(
    name: str, args: InferenceEndpointArgs, opts: pulumi.ResourceOptions
) -> native_sagemaker.EndpointConfig:
    """Where copies may be placed. It has no fixed name, since every change replaces it.

    From the native provider: the classic one knows no network for inference components.
    """
    return native_sagemaker.EndpointConfig(
        name,
        execution_role_arn=args.execution_role_arn,
        kms_key_id=args.volume_key_arn,
        enable_network_isolation=True,
        vpc_config=native_sagemaker.EndpointConfigVpcConfigArgs(
            subnets=args.subnet_ids, security_group_ids=args.security_group_ids
        ),
        production_variants=[
            native_sagemaker.EndpointConfigProductionVariantArgs(
                variant_name=VARIANT,
                instance_type=args.instance_type,
                initial_instance_count=max(1, args.min_instances),
                volume_size_in_gb=args.attached_gb,
                inference_ami_version=args.inference_ami,
                container_startup_health_check_timeout_in_seconds=args.startup_timeout_s,
                model_data_download_timeout_in_seconds=args.download_timeout_s,
                managed_instance_scaling=native_sagemaker.EndpointConfigManagedInstanceScalingArgs(
                    status="ENABLED",
                    min_instance_count=args.min_instances,
                    max_instance_count=args.max_instances,
                ),
                routing_config=native_sagemaker.EndpointConfigRoutingConfigArgs(
                    routing_strategy="LEAST_OUTSTANDING_REQUESTS"
                ),
            )
        ],
        tags=native_tags(args.tags),
        opts=opts,
    )


def _component(
    name: str,
    args: InferenceEndpointArgs,
    endpoint: sagemaker.Endpoint,
    model: sagemaker.Model,
    opts: pulumi.ResourceOptions,
) -> native_sagemaker.InferenceComponent:
    """The copies. One is made at first also where zero is the rest: it shows that the image runs.

    Their number belongs to who scales them from then on.
    """
    needs = native_sagemaker.InferenceComponentComputeResourceRequirementsArgs(
        min_memory_required_in_mb=args.memory_mb,
        number_of_cpu_cores_required=args.cpu,
        number_of_accelerator_devices_required=args.accelerators or None,
    )
    return native_sagemaker.InferenceComponent(
        name,
        inference_component_name=args.name,
        endpoint_name=endpoint.name,
        variant_name=VARIANT,
        specification=native_sagemaker.InferenceComponentSpecificationArgs(
            model_name=model.name,
            compute_resource_requirements=needs,
            startup_parameters=native_sagemaker.InferenceComponentStartupParametersArgs(
                container_startup_health_check_timeout_in_seconds=args.startup_timeout_s,
                model_data_download_timeout_in_seconds=args.download_timeout_s,
            ),
        ),
        runtime_config=native_sagemaker.InferenceComponentRuntimeConfigArgs(
            copy_count=max(1, args.min_copies)
        ),
        tags=native_tags({**args.tags, SCALED_BY_TAG: args.scaled_by.value}),
        opts=pulumi.ResourceOptions.merge(
            opts, pulumi.ResourceOptions(ignore_changes=["runtimeConfig.copyCount"])
        ),
    )
