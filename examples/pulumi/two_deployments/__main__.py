"""Two deployments of one model and a key to use them, on the platform that the stack names.

pulumi config set model /path/to/a/model
pulumi up
"""

import pulumi

from tidegate.spec import ScalingSpec, ScheduleSpec
from tidegate_infra import ApiKey, ModelDeployment

config = pulumi.Config()
model = config.require("model")

# From zero on demand, but warm in office hours.
chat = ModelDeployment(
    "chat",
    model=model,
    mode="serverless",
    scaling=ScalingSpec(
        max_replicas=config.get_int("most") or 2,
        schedule=(ScheduleSpec(cron="0 8 * * 1-5", duration_s=36_000, min_replicas=1),),
    ),
    labels={"team": "web"},
)

# The same model for what may wait, next to it.
digest = ModelDeployment(
    "digest",
    model=model,
    mode="batch",
    labels={"team": "data", "beside": chat.name},
)

reader = ApiKey("reader", requests_per_minute=600)

pulumi.export("chat", chat.name)
pulumi.export("digest", digest.name)
pulumi.export("baseUrl", chat.base_url)
pulumi.export("key", reader.key)
