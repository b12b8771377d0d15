"""AWS on a machine of its own: moto's server, which tells of its instances on stdout, each change in a line of JSON.

python -m tests.cluster.fake_aws us-west-2
{"id": "i-…", "state": "running", "private": "10.…", "public": "54.…", "key": "ssh-rsa …", "spot": false}
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

PORT = 5000
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


def main(region: str) -> None:
    """Serve, and tell, until killed."""
    os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"
    ThreadedMotoServer("0.0.0.0", PORT, verbose=False).start()
    os.environ |= CREDENTIALS
    make_role(boto3.client("iam", region, endpoint_url=f"http://127.0.0.1:{PORT}"))
    ec2 = boto3.client("ec2", region, endpoint_url=f"http://127.0.0.1:{PORT}")
    print(json.dumps({"serving": region}), flush=True)
    told: dict[str, str] = {}
    while True:
        for instance in instances(ec2):
            if told.get(instance["id"]) != instance["state"]:
                told[instance["id"]] = instance["state"]
                print(json.dumps(instance), flush=True)
        time.sleep(0.5)


def make_role(iam: Any) -> None:
    """The role that Ray makes in an account that it has not been in, and then waits half a minute for."""
    name = "ray-autoscaler-v1"
    iam.create_instance_profile(InstanceProfileName=name)
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": []}))
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)


def instances(ec2: Any) -> list[dict[str, Any]]:
    """All instances that there are or were."""
    reservations = ec2.describe_instances()["Reservations"]
    keys = {pair["KeyName"]: pair["PublicKey"] for pair in ec2.describe_key_pairs(IncludePublicKey=True)["KeyPairs"]}
    return [
        {
            "id": instance["InstanceId"],
            "state": instance["State"]["Name"],
            "private": instance.get("PrivateIpAddress"),
            "public": instance.get("PublicIpAddress"),
            "key": keys[instance["KeyName"]],
            "spot": instance.get("InstanceLifecycle") == "spot",
            "type": instance["InstanceType"],
        }
        for reservation in reservations
        for instance in reservation["Instances"]
    ]


if __name__ == "__main__":
    main(sys.argv[1])
